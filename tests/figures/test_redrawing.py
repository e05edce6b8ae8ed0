"""Every figure can be drawn again from its CSV: nothing is drawn that the CSV does not hold."""

import inspect
from importlib import import_module
from pkgutil import iter_modules
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from helpers import fine_tuned
from helpers.made_up import made_up_cases, made_up_table, rows_of_clicks, rows_of_loops
from helpers.redrawing import as_read_back, drawn_numbers, lacking

from medsam_nb import figures
from medsam_nb.figures import (
    claims,
    corrections,
    depth,
    designs,
    distance,
    fine_tuning,
    memory,
    models,
    prompts,
    robustness,
    slice_distance,
    sparse_truth,
    style,
)
from medsam_nb.protocol.designs import ALL_DESIGNS
from medsam_nb.protocol.options import windows
from medsam_nb.protocol.table import as_table
from medsam_nb.protocol.volume_changes import VolumeChange
from medsam_nb.statistics import change_point, explained, paired, published, rankings, scoreboard
from medsam_nb.statistics import depth as depths
from medsam_nb.statistics import fine_tuning as tuned
from medsam_nb.statistics import slice_distance as doses
from medsam_nb.statistics import sparse_truth as sparse

mpl.use("agg")
SAM2, SAM = "miniature_sam2", "miniature_sam"
DECIMATED = VolumeChange("decimated", 3).name
COMPARED = [
    ("one_box", "one_point", "one"),
    ("one_point", "point_per_component", "one"),
    ("one_box", "box_per_component", "other"),
]
ARMS = dict(tuned.with_arms(fine_tuned.jobs())[["arm", "learns"]].itertuples(index=False))
MEASURED = {"task": "3d", "object": "organ", "model": SAM2, "metric": "iou"}


def of_depth():
    """8 patients with volumes of 5 and 9 slices, 2 and 4 mm apart, whose IoU falls with the distance."""
    rng, rows = np.random.default_rng(0), []
    for patient in range(8):
        for count, mm in ((5, 2.0), (5, 4.0), (9, 2.0), (9, 4.0)):
            for d in range(-(count // 2), count // 2 + 1):
                case = {
                    "data_set": "trunk",
                    "patient_id": f"p{patient}",
                    "case_id": f"p{patient}_{count}x{mm}",
                }
                place = {"slice_index": d + count // 2, "distance_slices": d, "distance_mm": d * mm}
                size = {"n_slices": count, "spacing_z_mm": mm, "modality": "CT"}
                value = 0.9 - 0.004 * abs(d) * mm - 0.01 * patient + rng.normal(0, 0.002)
                rows.append(MEASURED | case | place | size | {"value": value})
    return as_table(rows)


def of_doses():
    """6 patients of two data sets, with all slices and with every third."""
    rng, rows = np.random.default_rng(0), []
    for patient in range(6):
        for change, factor in (("none", 1), (DECIMATED, 3)):
            for z in range(0, 13, factor):
                case = {"data_set": f"s{patient % 2}", "case_id": f"p{patient}", "volume_change": change}
                dose = {
                    "spacing_z_mm": (2.0 + patient) * factor,
                    "neighbour_iou": 1 - 0.02 * factor if z else None,
                }
                value = 0.8 - 0.01 * z - 0.02 * factor + rng.normal(0, 0.01)
                rows.append(MEASURED | case | dose | {"slice_index": z, "distance_slices": z, "value": value})
    return as_table(rows)


def shaken(rows):
    """2D rows, and the same with prompts displaced by a tenth."""
    flat = rows[rows["task"] == "2d"]
    return pd.concat([flat, flat.assign(value=flat["value"] * 0.9, prompt_source="jittered:0.1:0")])


@pytest.fixture(scope="module")
def given():
    """Small tables of every kind, each made once."""
    made = made_up_table(cases=6, designs=ALL_DESIGNS[:6] + ALL_DESIGNS[-6:])
    cases, rng = made_up_cases(cases=6), np.random.default_rng(0)
    gains = {"one_point": 0.01, "mask": 0.1}
    of_model = made[made["model"] == SAM2]
    windowed = [of_model.assign(memory=name) for name in ("released", "1 memory")]
    long, found = of_depth(), {}
    found["compared"] = paired.compare(
        made,
        [
            {"name": f"{b} against {a}", "family": family, "task": "2d", "vary": "prompt", "a": a, "b": b}
            | {"where": {"mask_choice": "first_mask", "model": SAM2}}
            for a, b, family in COMPARED
        ],
    ).assign(learns=list(fine_tuned.GAIN))
    found["several"] = fine_tuned.made_up(), fine_tuned.made_up("other_ct", 3, sign=-1.0)
    found["gains"] = pd.concat(
        tuned.gains(tuned.of_arms(table, fine_tuned.jobs()), tuned.largest(fine_tuned.jobs()))
        for table in found["several"]
    )
    found["loss"] = depths.slice_losses(long).assign(
        mm=lambda t: t["distance_mm"].abs(), chance=lambda t: rng.normal(size=len(t))
    )
    return SimpleNamespace(
        table=made,
        of_model=of_model,
        volumes=of_model[of_model["task"] == "3d"],
        clicks=as_table(list(rows_of_clicks(cases, rng))),
        loops=as_table(list(rows_of_loops(cases, rng, gains))),
        memory=pd.concat(windowed),
        long=long,
        by_distance=change_point.by_distance(long[(long["n_slices"] == 9) & long["spacing_z_mm"].eq(2.0)]),
        doses=doses.dose_points(of_doses()),
        **found,
    )


def each(draw, axes):
    return pd.concat([draw(axes[0], "step_mm"), draw(axes[1], "likeness")])


def of_sam(draw):
    return lambda g, ax: draw(g.table, ax, SAM2, SAM)


BAND = [-models.MARGIN, models.MARGIN]  # the margin of equivalence, and the diagonal with it
DIAGONAL = [0, 1, *BAND, 1 - models.MARGIN, 1 + models.MARGIN]
ORDER = [f"{b} against {a}" for a, b, _ in COMPARED]
SECONDS = {"one_point": 2.0, "one_box": 7.0, "mask": 80.0}
PREDICTORS = ["mm", "chance"]
FIGURES = {  # with the axes that they are given
    claims.claims_forest: (
        1,
        lambda g, ax: claims.claims_forest(scoreboard.scoreboard(g.table, draws=99), ax),
    ),
    corrections.iou_by_click: (1, lambda g, ax: corrections.iou_by_click(g.clicks, ax, "dice")),
    corrections.iou_by_loop: (1, lambda g, ax: corrections.iou_by_loop(g.loops, ax)),
    corrections.iou_by_effort: (1, lambda g, ax: corrections.iou_by_effort(g.loops, ax, SECONDS)),
    depth.depth_scheme: (1, lambda g, ax: depth.depth_scheme([(4, 2.0), (5, 2.0), (5, 4.5)], ax)),
    depth.iou_by_depth: (3, lambda g, axes: depth.iou_by_depth(g.long, axes)),
    depth.contrast_forest: (1, lambda g, ax: depth.contrast_forest(g.compared, ax, "difference")),
    depth.iou_by_modality: (1, lambda g, ax: depth.iou_by_modality(g.of_model, ax)),
    depth.explained_forest: (
        2,
        lambda g, axes: depth.explained_forest(explained.explained(g.loss, PREDICTORS, draws=50), axes, {}),
    ),
    designs.iou_by_design: (1, lambda g, ax: designs.iou_by_design(g.of_model, ax)),
    designs.design_heat_map: (1, lambda g, ax: designs.design_heat_map(g.of_model, ax)),
    designs.design_ranking: (1, lambda g, ax: designs.design_ranking(g.of_model, ax, most=6)),
    designs.critical_difference: (
        1,
        lambda g, ax: designs.critical_difference(rankings.rank_designs(g.of_model), ax),
    ),
    distance.iou_by_distance: (1, lambda g, ax: distance.iou_by_distance(g.of_model, ax, "prompt")),
    distance.retention_by_distance: (1, lambda g, ax: distance.retention_by_distance(g.of_model, ax)),
    distance.depth_and_spacing: (2, lambda g, axes: distance.depth_and_spacing(g.of_model, axes)),
    fine_tuning.learning_curve: (
        1,
        lambda g, ax: fine_tuning.learning_curve(tuned.learning_curves(g.several[0], fine_tuned.jobs()), ax),
    ),
    fine_tuning.arm_differences: (1, lambda g, ax: fine_tuning.arm_differences(g.compared, ax)),
    fine_tuning.forgetting: (
        1,
        lambda g, ax: fine_tuning.forgetting(
            g.gains, tuned.mean_gains(g.gains), ax, [fine_tuned.TRAINED], ARMS
        ),
    ),
    fine_tuning.split_of_patients: (
        1,
        lambda g, ax: fine_tuning.split_of_patients(
            pd.DataFrame(
                {"fold": 0, "repeat": repeat, "patients": "3", "column": patient, "role": role}
                for repeat in (0, 1)
                for patient, role in enumerate(["trained on"] * 3 + ["measured on"] * 2)
            ),
            ax,
        ),
    ),
    memory.iou_by_memory: (1, lambda g, ax: memory.iou_by_memory(g.memory, ax, ["released", "1 memory"])),
    memory.memory_differences: (1, lambda g, ax: memory.memory_differences(g.compared, ax, ORDER)),
    memory.broken_line: (
        1,
        lambda g, ax: memory.broken_line(
            g.by_distance, change_point.change_point(g.by_distance, draws=50), ax
        ),
    ),
    memory.window_scheme: (1, lambda g, ax: memory.window_scheme(windows([1, 4], [3], [3], ["truth"]), ax)),
    models.sam2_against_sam: (1, of_sam(models.sam2_against_sam)),
    models.sam2_minus_sam: (1, of_sam(models.sam2_minus_sam)),
    models.measured_and_published: (
        1,
        lambda g, ax: models.measured_and_published(published.measured_against_published(g.table), ax),
    ),
    prompts.iou_by_prompt_2d: (1, lambda g, ax: prompts.iou_by_prompt_2d(g.of_model, ax)),
    prompts.iou_by_prompt_2d_of_models: (
        2,
        lambda g, axes: prompts.iou_by_prompt_2d_of_models(g.table, [SAM2, SAM], axes),
    ),
    robustness.iou_by_share: (1, lambda g, ax: robustness.iou_by_share(shaken(g.of_model), ax)),
    slice_distance.differences_by_row: (
        1,
        lambda g, ax: slice_distance.differences_by_row(
            g.compared, ax, ORDER, "gain", ["once", "twice", "thrice"], 0.1
        ),
    ),
    slice_distance.dose_lines: (
        2,
        lambda g, axes: each(
            lambda ax, axis: slice_distance.dose_lines(g.doses, ax, doses.dose_response(g.doses, axis)), axes
        ),
    ),
    sparse_truth.sparse_estimates: (
        2,
        lambda g, axes: sparse_truth.sparse_estimates(
            sparse.sparse_estimates(g.volumes, [sparse.Annotation(), sparse.Annotation(3)], draws=3),
            axes,
            0.05,
        ),
    ),
}
CONSTANTS = {models.sam2_against_sam: DIAGONAL, models.sam2_minus_sam: BAND}


def made(draw, given):
    """A figure's axes, and what it says that it drew."""
    columns, of = FIGURES[draw]
    with style.style():
        figure, axes = style.canvas(180, 90, columns=columns)
        plotted = of(given, axes)
        figure.canvas.draw()
        mpl.pyplot.close(figure)
    return list(np.atleast_1d(axes)), plotted


def no_data(draw, axes):
    """What is drawn and is no measured number: margins, what a claim says, the ends of an axis."""
    if draw is claims.claims_forest:
        return [*axes[0].get_xlim(), 0, -claims.MARGIN, claims.MARGIN, -claims.MUCH]
    return CONSTANTS.get(draw, [])


@pytest.mark.parametrize("draw", FIGURES, ids=lambda draw: draw.__name__)
def test_all_that_is_drawn_stands_in_the_csv(draw, given):
    axes, plotted = made(draw, given)
    table = as_read_back(plotted)
    numbers = set().union(*map(drawn_numbers, axes))
    assert numbers and lacking(axes, table, no_data(draw, axes)) == []
    assert lacking(
        axes, table.select_dtypes(exclude="number"), no_data(draw, axes)
    )  # what is not there is missed


def test_prompts_of_a_file_are_drawn_and_not_only_in_the_csv(given):
    hand = {"prompt": "given", "frame_choice": "given"}
    flat = given.of_model.query("task == '2d' and prompt == 'one_box'").assign(prompt="given")
    deep = given.volumes.query("prompt == 'one_point' and frame_choice == 'first_slice'").assign(**hand)
    for draw, rows, many in (
        (prompts.iou_by_prompt_2d, flat, 3),  # two data sets, and both of them
        (designs.iou_by_design, deep, 4),
        (designs.design_heat_map, deep, 4),
        (designs.design_ranking, deep, 4),
    ):
        with style.style():
            figure, ax = style.canvas(120, 60)
            plotted = draw(rows, ax)
            figure.canvas.draw()
            mpl.pyplot.close(figure)
        assert len(plotted) == many and set(plotted["mean"]) <= {mark[0] for mark in drawn_numbers(ax)}
        assert lacking([ax], as_read_back(plotted)) == []


def test_no_figure_is_left_out():
    drawing = set()
    for found in iter_modules(figures.__path__):
        module = import_module(f"medsam_nb.figures.{found.name}")
        if found.name in ("style", "slices", "order"):  # parts of figures; pictures
            continue
        for name, function in inspect.getmembers(module, inspect.isfunction):
            given = set(inspect.signature(function).parameters)
            if function.__module__ == module.__name__ and name[0] != "_" and given & {"ax", "axes"}:
                drawing.add(function)
    assert drawing == set(FIGURES)


def test_the_check_finds_a_missing_end_a_wrong_row_and_a_missing_name():
    rows = pd.DataFrame(
        {"name": ["one_box", "mask"], "mean": [0.5, 0.7], "low": [0.4, 0.6], "high": [0.6, 0.9]}
    )
    with style.style():
        figure, (left, right) = style.canvas(120, 60, columns=2)
        for place, row in rows.iterrows():
            left.plot([row["low"], row["high"]], [place] * 2)
            left.plot(row["mean"], place, "o")
        left.set_yticks([0, 1], ["one box", "mask"])
        left.axvline(0.123)
        right.fill_between([1, 2], rows["low"], rows["high"])
        right.axvspan(3.5, 4.5)
        mpl.pyplot.close(figure)
    assert drawn_numbers(left) == {(0.4, 0.6), (0.6, 0.9), (0.5,), (0.7,)}
    assert drawn_numbers(right) == {(1, 0.4), (1, 0.6), (2, 0.6), (2, 0.9), (3.5,), (4.5,)}
    assert lacking([left], as_read_back(rows)) == []
    assert lacking([left], as_read_back(rows.drop(columns="high"))) == [(0.4, 0.6), (0.6, 0.9)]
    crossed = rows.assign(high=[0.9, 0.6])
    assert lacking([left], as_read_back(crossed)) == [(0.4, 0.6), (0.6, 0.9)]  # each is there, in other rows
    assert lacking([left], as_read_back(rows.assign(name=["one_box", "box"]))) == ["mask"]
    assert lacking([left], as_read_back(rows.assign(mean=[0.500002, 0.7]))) == [(0.5,)]
    assert lacking([right], as_read_back(rows.assign(x=[1, 2])), [3.5, 4.5]) == []
