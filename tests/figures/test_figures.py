"""Figures: drawn for zero, one and many data sets without a warning, nothing cut; tables and text."""

import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers.made_up import made_up_cases, made_up_table, rows_of_clicks, rows_of_loops

from medsam_nb.figures import (
    claims,
    corrections,
    designs,
    distance,
    grids,
    models,
    prompts,
    slices,
    style,
    words,
)
from medsam_nb.protocol.designs import ALL_DESIGNS
from medsam_nb.protocol.prompts import Prompt
from medsam_nb.protocol.table import as_table
from medsam_nb.statistics import paired, pooling, published, rankings
from medsam_nb.statistics.scoreboard import scoreboard
from medsam_nb.workbook import manuscript, printed

mpl.use("agg")
LONG = ("CT-Hepaticvessel with a very long name of its own", "MRI-Heart", "simulated_ultrasound_thick_slices")
MANY = tuple(f"MRI-Set {number}" for number in range(18))  # as many as the study's first version has
TABLES = {
    "zero": lambda: made_up_table(cases=1)[:0],
    "one": lambda: made_up_table(("MRI-Heart",), 1, designs=ALL_DESIGNS[::5]),  # designs are missing
    "long": lambda: made_up_table(LONG, 3, designs=ALL_DESIGNS[1::3]),
    "many": lambda: made_up_table(MANY, 1, designs=ALL_DESIGNS[:16]),
}
WIDTHS = {"claims": 180, "iou_by_distance": 88, "retention": 88}  # mm; otherwise 120
ROOMY = {"prompts_2d": 150, "sam2_minus_sam": 110, "published": 110}  # mm for many data sets


def of_sam2(draw):
    """What takes the rows of one model."""
    return lambda table, axes: draw(table[table["model"] == "miniature_sam2"], axes)


def both_models(draw):
    return lambda table, ax: draw(table, ax, "miniature_sam2", "miniature_sam")


def corrected(rows_of, *given):
    """Rows of corrections of the cases of a table."""

    def rows(table):
        cases = [
            (*names, 0.5) for names in dict.fromkeys(zip(table["data_set"], table["case_id"], strict=True))
        ]
        return as_table(list(rows_of(cases, np.random.default_rng(0), *given)))

    return rows


clicks = corrected(rows_of_clicks)
loops = corrected(rows_of_loops, {"one_point": 0.01, "one_box": 0.05, "mask": 0.1})
SECONDS = {"one_point": 2.0, "one_box": 7.0, "mask": 80.0}
DRAWN = {
    "iou_by_click": (75, lambda t, ax: corrections.iou_by_click(clicks(t), ax)),
    "dice_by_click": (75, lambda t, ax: corrections.iou_by_click(clicks(t), ax, "dice")),
    "iou_by_loop": (80, lambda t, ax: corrections.iou_by_loop(loops(t), ax)),
    "iou_by_effort": (80, lambda t, ax: corrections.iou_by_effort(loops(t), ax, SECONDS)),
    "iou_by_design": (110, of_sam2(designs.iou_by_design)),
    "iou_by_distance": (62, of_sam2(distance.iou_by_distance)),
    "retention": (62, of_sam2(distance.retention_by_distance)),
    "retention_by_prompt": (62, of_sam2(lambda t, ax: distance.retention_by_distance(t, ax, "prompt"))),
    "prompts_2d": (75, of_sam2(prompts.iou_by_prompt_2d)),
    "design_heat_map": (95, of_sam2(designs.design_heat_map)),
    "design_ranking": (100, of_sam2(designs.design_ranking)),
    "critical_difference": (
        95,
        of_sam2(lambda t, ax: designs.critical_difference(rankings.rank_designs(t), ax)),
    ),
    "critical_difference_of_a_factor": (
        50,
        of_sam2(lambda t, ax: designs.critical_difference(rankings.rank_designs(t, ["prompt"]), ax)),
    ),
    "sam2_against_sam": (95, both_models(models.sam2_against_sam)),
    "sam2_minus_sam": (75, both_models(models.sam2_minus_sam)),
    "claims": (170, lambda t, ax: claims.claims_forest(boards(t), ax)),
    "published": (
        70,
        lambda t, ax: models.measured_and_published(published.measured_against_published(t), ax),
    ),
}
BOARDS = {}


def boards(table):
    """The scoreboard of a table, computed once."""
    if len(table) not in BOARDS:
        BOARDS[len(table)] = scoreboard(table, draws=199)
    return BOARDS[len(table)]


@pytest.fixture(scope="module")
def made():
    """The tables by name, each made once."""
    return {name: make() for name, make in TABLES.items()}


def is_cut(fig):
    """Whether anything that is drawn reaches beyond the page (a hundredth of an inch is let pass)."""
    fig.canvas.draw()
    box, (width, height) = fig.get_tightbbox(fig.canvas.get_renderer()), fig.get_size_inches()
    return min(box.x0, box.y0, width - box.x1, height - box.y1) < -0.01


def overlapping(fig):
    """Pairs of neighbouring tick labels of an axis that cover one another."""
    renderer = fig.canvas.get_renderer()
    found = []
    for ax in fig.axes:
        for axis in (ax.xaxis, ax.yaxis):
            # of turned labels the boxes overlap although the words do not
            shown = [
                t for t in axis.get_ticklabels() if t.get_text() and t.get_visible() and not t.get_rotation()
            ]
            boxes = [text.get_window_extent(renderer) for text in shown] if ax.axison else []
            for one, other, text in zip(boxes, boxes[1:], shown, strict=False):
                if one.shrunk(0.98, 0.9).overlaps(other.shrunk(0.98, 0.9)):
                    found.append(text.get_text())
    return found


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("name", DRAWN)
def test_every_figure_fits_its_page(kind, name, made, tmp_path):
    height, draw = DRAWN[name]
    with style.style():
        fig, ax = style.canvas(WIDTHS.get(name, 120), ROOMY.get(name, height) if kind == "many" else height)
        plotted = draw(made[kind], ax)
        assert not is_cut(fig)
        assert overlapping(fig) == []
        paths = style.save(fig, tmp_path, name, plotted)
        plt.close(fig)
    assert paths["pdf"].read_bytes().startswith(b"%PDF") and paths["csv"].is_file()
    if name != "published":
        assert (len(plotted) == 0) == (kind == "zero")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", TABLES)
def test_two_panels_side_by_side_fit_their_page(kind, made):
    table = made[kind]
    for draw in (
        lambda axes: distance.depth_and_spacing(table[table["model"] == "miniature_sam2"], axes),
        lambda axes: both_models(models.sam2_against_sam)(table, axes[0]),
    ):
        with style.style():
            fig, axes = style.canvas(style.PAGE_MM, 88, columns=2)
            assert (len(draw(axes)) == 0) == (kind == "zero")
            assert not is_cut(fig) and overlapping(fig) == []
            plt.close(fig)


def test_the_numbers_of_the_heat_map_can_be_read_on_every_colour():
    def luminance(colour):
        rgb = np.asarray(colour[:3], float)
        return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ (
            0.2126,
            0.7152,
            0.0722,
        )

    for value in np.linspace(0, 1, 101):
        colour = mpl.colormaps["cividis"](value)
        text = {"black": 0.0, "white": 1.0}[style.readable_on(colour)]
        light, dark = max(luminance(colour), text) + 0.05, min(luminance(colour), text) + 0.05
        assert light / dark >= 4.5  # WCAG 2, level AA


def test_many_designs_are_drawn_from_both_ends_and_the_resolution_is_said(made):
    table = made_up_table(("MRI-Heart",), 4)
    ranking = rankings.rank_designs(table[table["model"] == "miniature_sam2"])
    with style.style():
        fig, ax = style.canvas(180, 95)
        designs.critical_difference(ranking, ax, most=10)
        shown = [text.get_text() for text in ax.get_yticklabels()]
        assert "54 designs between" in [text.get_text() for text in ax.texts]
        plt.close(fig)
    names = [words.label(name).replace("/", ", ") for name in ranking.ranks["design"]]
    assert shown == names[:5] + names[-5:]
    said = rankings.resolution(ranking)
    assert said.startswith("With 64 designs and 4 cases") and f"{ranking.critical_difference:.1f}" in said
    assert "not tested" in rankings.resolution(rankings.rank_designs(made["zero"]))


def test_sam2_minus_sam_draws_the_paired_differences(made):
    table = made_up_table(("MRI-Heart", "CT-Spleen"), 6)
    shift = table["model"].eq("miniature_sam2") & table["task"].eq("2d")
    value = table["value"].astype(float).clip(0, 0.9) + 0.02 * shift.to_numpy(float)
    with style.style():
        fig, ax = style.canvas()
        drawn = models.sam2_minus_sam(
            table.assign(value=pd.array(value, "Float64")), ax, "miniature_sam2", "miniature_sam"
        )
        plt.close(fig)
    ticks = drawn[drawn["patient_id"].notna()]  # of the patients of every row
    drawn = drawn[drawn["patient_id"].isna()]
    assert drawn["object"].tolist() == ["organ", "organ", "all cases"] and drawn["n"].tolist() == [6, 6, 12]
    of_row = ticks.groupby("object")["difference"]
    assert of_row.size().to_dict() == {"organ": 12, "all cases": 12}
    assert of_row.mean()["all cases"] == pytest.approx(drawn["difference"].iloc[2])
    rows = table.assign(value=value)
    rows = rows[(rows["task"] == "2d") & (rows["mask_choice"] == "first_mask")]
    wide = (
        rows.groupby(["data_set", "case_id", "prompt", "model"])["value"]
        .mean()
        .groupby(["data_set", "case_id", "model"])
    )
    wide = wide.mean().unstack()
    d = wide["miniature_sam2"] - wide["miniature_sam"]
    assert drawn["difference"].iloc[2] == pytest.approx(d.mean(), abs=1e-9)
    assert drawn["ci_level"].eq(0.9).all() and drawn["p"].iloc[2] < 0.05


def test_a_figure_and_a_comparison_of_the_same_thing_have_the_same_numbers(made):
    """The equivalence of the two models: estimate, interval and p, before the correction for other tests."""
    table = made_up_table(("MRI-Heart", "CT-Spleen"), 6)
    declared = {"name": "alike", "task": "2d", "vary": "model", "a": "miniature_sam2", "b": "miniature_sam"}
    declared |= {"where": {"mask_choice": "first_mask"}, "test": "equivalence", "margin": models.MARGIN}
    row = paired.compare(table, [declared]).iloc[0]
    h1 = scoreboard(table, draws=99).set_index("claim").loc["H1"]
    with style.style():
        fig, ax = style.canvas()
        drawn = models.sam2_minus_sam(table, ax, "miniature_sam2", "miniature_sam")
        drawn = drawn[drawn["patient_id"].isna()].iloc[-1]
        plt.close(fig)
    for column in ("n", "difference", "ci_low", "ci_high", "ci_level", "p", "generalises_to"):
        assert drawn[column] == row[column] == h1[column], column


def test_the_forest_draws_the_intervals_that_decide(made):
    board = boards(made["many"])
    with style.style():
        fig, ax = style.canvas(180, 170)
        drawn = claims.claims_forest(board, ax)
        plt.close(fig)
    decided = drawn[drawn["finding"].isin(["supported", "contradicted"]) & drawn["relation"].isin([">", "<"])]
    assert len(decided) and ((decided["holm_low"] > 0) | (decided["holm_high"] < 0)).all()
    undecided = drawn[(drawn["finding"] == "inconclusive") & drawn["relation"].isin([">", "<"])]
    assert len(undecided) and not ((undecided["holm_low"] > 0) | (undecided["holm_high"] < 0)).any()


def test_fonts_are_embedded_as_truetype_and_bytes_repeat(tmp_path):
    table = made_up_table(("MRI-Heart",), 2, designs=ALL_DESIGNS[:4])
    found = []
    for name in ("a", "b"):
        with style.style():
            fig, ax = style.canvas()
            plotted = distance.iou_by_distance(table, ax)
            found.append(style.save(fig, tmp_path, name, plotted)["pdf"].read_bytes())
            plt.close(fig)
    assert b"/FontFile2" in found[0] and b"/Type3" not in found[0]
    assert found[0] == found[1]


def test_what_is_drawn_is_the_mean_over_cases():
    table = made_up_table(("MRI-Heart",), 3)
    with style.style():
        fig, ax = style.canvas()
        drawn = prompts.iou_by_prompt_2d(table[table["model"] == "miniature_sam2"], ax)
        plt.close(fig)
    rows = table[
        (table["task"] == "2d") & (table["mask_choice"] == "first_mask") & (table["prompt"] == "one_box")
    ]
    rows = rows[rows["model"] == "miniature_sam2"].astype({"value": float})
    expected = rows.groupby("case_id")["value"].mean().mean()
    assert drawn.set_index("prompt").loc["one_box", "mean"] == pytest.approx(expected)


def test_image_panels_of_no_one_and_several_cases():
    image = np.random.default_rng(0).random((40, 30))
    truth, prediction = np.zeros((2, 40, 30), bool)
    truth[:20, :15] = True  # at the border
    shown = slices.Panel(image, truth, prediction, Prompt(points=((3, 4),)), 0.0, "a/very_long_title " * 4)
    boxed = slices.Panel(image, truth, truth, Prompt(box=(0, 0, 14, 19)), float("nan"))
    for some in ([], [shown], [shown, None, boxed, shown, boxed]):
        with style.style():
            fig, plotted = grids.grid(some, columns=3)
            assert len(plotted) == len([panel for panel in some if panel is not None])
            assert not is_cut(fig)
            plt.close(fig)


def test_tables_and_text_of_a_paper():
    table = made_up_table(("MRI-Heart",), 6, designs=ALL_DESIGNS[:4])
    declared = {"name": "box_50 %", "task": "2d", "vary": "prompt", "a": "one_box", "b": "one_point"}
    declared |= {"where": {"mask_choice": "first_mask"}, "each": "model"}
    result = paired.compare(table, [declared])
    text = printed.latex(printed.comparison_table(result), "Effects & tests", "effects")
    assert r"\toprule" in text and r"box\_50 \%" in text and r"Effects \& tests" in text
    assert printed.latex(printed.claims_table(scoreboard(table, draws=199)), "Claims", "claims").count("H13")
    record = {
        "checkpoints": {"m": "ab" * 32},
        "packages": {"torch": "2.5"},
        "seed": ["7"],
        "git_commit": None,
    }
    words = manuscript.methods_paragraph(record, table, result)
    assert "6 cases from 1 data set (" in words and "Of 2 comparisons declared beforehand, 2 could" in words
    assert "in 1 family (all: 2)" in words and "0 masks failed" in words
    assert "m (SHA-256 abababababab)" in words and "torch 2.5" in words and "None" not in words
    record |= {"unverified_weights": ["m"], "failed_units": [{"case_id": "a"}, {"case_id": "b"}]}
    words = manuscript.methods_paragraph(record, table, result)
    assert (
        "m (SHA-256 abababababab, unverified)" in words and "2 units of work (a case with a model)" in words
    )


def unescaped(text):
    """LaTeX special characters of the text that stand without a backslash."""
    return re.findall(r"(?<!\\)[&%$#_]", re.sub(r"\$[<>]\$", "", text))


def test_latex_is_balanced_and_escaped(made):
    table = made_up_table(LONG, 2, designs=ALL_DESIGNS[:4])
    flat = table[(table["task"] == "2d") & (table["model"] == "miniature_sam2")]
    by = ["data_set", "prompt", "mask_choice"]
    means = paired.summarise(pooling.case_means(flat, [*pooling.NEVER_MIXED, *by[1:]]), by)
    awkward = pd.DataFrame({"a_b {c} 100 %": ["x & y", "~^\\", "<0.001 #1 $"], "n": [1, 2, 3]})
    tables = {
        "means": printed.means_table(means.head(printed.PAGE_ROWS), by),
        "claims": printed.claims_table(boards(table)),
        "comparisons": printed.comparison_table(published.compare_published()),
        "none": printed.comparison_table(paired.compare(made["zero"], [])),
        "awkward": awkward,
    }
    for name, shown in tables.items():
        text = printed.latex(shown, f"{name}: 100 % of_it", name)
        assert text.count(r"\begin{") == text.count(r"\end{") == 2
        depth = np.cumsum([{"{": 1, "}": -1}.get(c, 0) for c in re.sub(r"\\[{}]", "", text)])
        assert depth.min() >= 0 and depth[-1] == 0
        lines = text.splitlines()
        body = [line for line in lines if line.endswith(r"\\")]
        assert len(body) == len(shown) + 1
        for line in body:
            cells = re.split(r"(?<!\\) & ", line.removesuffix(r" \\"))
            assert len(cells) == shown.shape[1] and not any(map(unescaped, cells))
        caption = next(line for line in lines if line.startswith(r"\caption"))
        assert unescaped(caption) == []
    columns = {"means": ["cases", "mean IoU (95 % CI)"], "claims": ["cases", printed.EFFECT]}
    columns["comparisons"] = ["objects", printed.EFFECT, "finding"]
    assert all(set(wanted) <= set(tables[name]) for name, wanted in columns.items())


def test_long_text_breaks_its_lines_in_latex():
    text = printed.latex(pd.DataFrame({"claim": ["word " * 30], "n": [3], "p": ["0.03"]}), "c", "t")
    assert r"\begin{tabular}{p{0.60\linewidth}rl}" in text


def test_a_long_table_runs_over_pages_in_latex(made):
    rows = made["many"]
    table = printed.data_sets_table(rows[(rows["task"] == "2d") & (rows["model"] == "miniature_sam2")])
    assert len(table) == len(MANY) and {"data set", "modality", "cases", "one box"} <= set(table)
    short, long = (printed.latex(pd.concat([table] * n), "By data set", "sets") for n in (1, 3))
    assert r"\begin{tabular}" in short and r"\begin{longtable}" in long and r"\endhead" in long
    assert r"\caption{By data set} \label{tab:sets}" in long and "tabular" not in long


def test_methods_say_equivalence_exclusions_and_protocol():
    table = made_up_table(("MRI-Heart",), 6, designs=ALL_DESIGNS[:4])
    declared = {"name": "alike", "task": "2d", "vary": "model", "a": "miniature_sam2", "b": "miniature_sam"}
    declared |= {"where": {"mask_choice": "first_mask"}, "test": "equivalence", "margin": 0.05}
    result = paired.compare(table, [declared])
    cases = pd.DataFrame({"status": ["ok"] * 6 + ["failed", "no_object"], "accuracy": True})
    words = manuscript.methods_paragraph({}, table, result, cases)
    assert "Equivalence within 0.05: two one-sided tests" in words
    assert "1 case could not be used" in words and "no object: 1 case." in words
    assert "Protocol: corrected." in words
    assert "  " not in words and words.endswith(".")


def test_figures_and_tables_show_the_dice_of_the_same_masks():
    table = made_up_table(("MRI-Heart",), 2, designs=ALL_DESIGNS[:8])
    table = table[table["model"] == "miniature_sam2"]
    dice = table.assign(value=2 * table["value"] / (1 + table["value"]))
    for draw in (
        prompts.iou_by_prompt_2d,
        designs.iou_by_design,
        designs.design_heat_map,
        designs.design_ranking,
        distance.iou_by_distance,
    ):
        fig, axes = plt.subplots(2)
        shown, expected = draw(table, axes[0], metric="dice"), draw(dice, axes[1])
        pd.testing.assert_frame_equal(shown, expected)
        bars = [ax.get_ylabel() for ax in fig.axes[2:3]]  # of the colours of the first
        text = "".join([axes[0].get_xlabel(), axes[0].get_ylabel(), axes[0].get_title(), *bars])
        assert "mean Dice" in text and "IoU" not in text
        plt.close(fig)
    by = ["prompt", "mask_choice"]
    flat = pooling.case_means(table[table["task"] == "2d"], by, "dice")
    assert "mean Dice (95 % CI)" in printed.means_table(paired.summarise(flat, by), by, "dice")


def test_loops_stand_in_the_order_of_their_numbers():
    gains = {"one_point": 0.01}
    rows = as_table(list(rows_of_loops(made_up_cases(cases=6), np.random.default_rng(0), gains, loops=11)))
    with style.style():
        figure, ax = style.canvas(180, 80)
        corrections.iou_by_loop(rows, ax)
        names = [text.get_text() for text in ax.get_xticklabels()]
        plt.close(figure)
    assert names == [*map(str, range(12)), "11,\nfresh start"]
