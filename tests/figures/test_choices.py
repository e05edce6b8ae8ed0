"""What a study chooses of its figures: names, colours, order, widths, decimals; and where bands stand."""

import re

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from helpers.made_up import made_up_table

from medsam_nb.errors import InputError
from medsam_nb.figures import choices, designs, order, prompts, robustness, style, words
from medsam_nb.protocol.designs import ALL_DESIGNS
from medsam_nb.protocol.table import as_table

mpl.use("agg")
SETS = ("us_a", "mri_b", "ct_c", "ct_a")
MODALITIES = {"us_a": "ultrasound (synthetic)", "mri_b": "MRI T2*", "ct_c": "CT", "ct_a": "simulated CT"}


@pytest.fixture(scope="module")
def table():
    made = made_up_table(SETS, 2)
    return made.assign(modality=made["data_set"].map(MODALITIES).astype("string"))


def ticks(table):
    with style.style():
        figure, ax = style.canvas(120, 80)
        prompts.iou_by_prompt_2d(table[table["model"] == "miniature_sam2"], ax)
        figure.canvas.draw()
        found = [text.get_text() for text in ax.get_yticklabels()]
        mpl.pyplot.close(figure)
    return [re.sub(r" \(\d+\)", "", text) for text in found]


def test_data_sets_stand_by_modality_or_as_a_study_says(table):
    assert ticks(table) == ["MRI b", "CT a", "CT c", "ultrasound a", "all data sets"]
    listed = choices.Choices(order={"data_sets": ["ct_c", "us_a"]}, names={"ct_c": "Our CTs"})
    with choices.holding(listed):
        assert ticks(table) == ["Our CTs", "ultrasound a", "MRI b", "CT a", "all data sets"]
    assert ticks(table) == ["MRI b", "CT a", "CT c", "ultrasound a", "all data sets"]


def test_a_row_s_label_is_its_name_unless_the_study_has_another(table):
    rows = {"ct_c": "Our CTs", "us_a": "sweeps"}
    with choices.holding(choices.with_names(choices.Choices(names={"us_a": "US"}), rows)):
        assert ticks(table) == ["MRI b", "CT a", "Our CTs", "US", "all data sets"]


def test_as_given_is_the_order_of_the_study(tmp_path, table):
    given = choices.Choices(order={"data_sets": "given"})
    choices.keep(given, tmp_path, SETS)
    with choices.holding(choices.kept(tmp_path)):
        assert order.data_sets_in_order(table) == list(SETS)


def test_a_colour_is_the_same_wherever_its_name_is_drawn():
    chosen = choices.Choices(colours={"one_box": "#123456", "miniature_sam2": "#654321"})
    with choices.holding(chosen):
        assert style.PROMPT_COLOURS["one_box"] == "#123456" == dict(style.PROMPT_COLOURS.items())["one_box"]
        assert style.PROMPT_COLOURS.get("unknown", "grey") == "grey"
        assert style.colour_of("miniature_sam2") == "#654321"
    assert style.PROMPT_COLOURS["one_box"] == "#0072B2"


def test_names_hold_also_within_longer_text():
    with choices.holding(choices.Choices(names={"miniature_sam2": "our SAM 2"})):
        assert words.label("box against point (miniature_sam2)") == "box against point (our SAM 2)"
    assert words.label("miniature_sam2") == "miniature SAM 2"


def test_widths_fonts_and_decimals_are_the_study_s(tmp_path):
    chosen = choices.Choices(column_mm=80, page_mm=170, font_size=8, decimal=",")
    with choices.holding(chosen), style.style():
        for width, expected in ((88, 80), (180, 170)):
            figure, ax = style.canvas(width, 60)
            assert np.isclose(figure.get_size_inches()[0] * 25.4, expected)
        style.iou_axis(ax)
        style.save(figure, tmp_path, "one", pd.DataFrame())
        assert [text.get_text() for text in ax.get_xticklabels()][1] == "0,2"
        assert ax.get_xticklabels()[0].get_size() == 7.5


def test_a_damaged_style_is_named(tmp_path):
    (tmp_path / choices.FILE).write_text('{"colours": {"a": "red"}}')
    with pytest.raises(InputError, match=r"style.json.*is no style"):
        choices.kept(tmp_path)
    assert choices.kept(tmp_path / "none") == choices.Choices()


@pytest.mark.parametrize(("patients", "drawn"), [(4, False), (8, True)])
def test_a_band_stands_on_five_patients_at_least(patients, drawn):
    rng = np.random.default_rng(0)
    cases = pd.DataFrame({"data_set": "s", "case_id": [f"c{n}" for n in range(patients)], "metric": "iou"})
    rows = [
        cases.assign(prompt="one_box", mask_choice="first_mask", prompt_source=source)
        for source in ("truth", "jittered:0.1:0")
    ]
    rows = pd.concat([one.assign(value=rng.uniform(0.4, 0.6, patients)) for one in rows])
    with style.style():
        figure, ax = style.canvas(88, 60)
        found = robustness.iou_by_share(as_table(rows), ax)
        areas = [path for band in ax.collections for path in band.get_paths() if len(path.vertices) > 2]
        mpl.pyplot.close(figure)
    assert bool(areas) is drawn and found["n_cases"].eq(patients).all()


def test_the_numbers_beside_a_figure_are_enough_to_draw_it_again(tmp_path, table):
    """The CSV alone gives every mark and every bar, at the place where the figure has it."""
    rows = table[table["model"] == "miniature_sam2"]
    more = made_up_table(("MRI-Heart",), 8, designs=ALL_DESIGNS[:8])
    drawings = {
        "prompts": lambda ax: prompts.iou_by_prompt_2d(rows, ax),
        "designs": lambda ax: designs.iou_by_design(more, ax),
    }
    for name, draw in drawings.items():
        with style.style():
            figure, ax = style.canvas(120, 90)
            plotted = draw(ax)
            lines = [line.get_xdata() for line in ax.lines if line.get_transform() == ax.transData]
            style.save(figure, tmp_path, name, plotted)
        found = pd.read_csv(tmp_path / f"{name}.csv")
        marks = sorted(float(x[0]) for x in lines if len(x) == 1)
        assert np.allclose(marks, sorted(found["mean"]), atol=1e-5), name
        bars = sorted((float(x[0]), float(x[1])) for x in lines if len(x) == 2)
        expected = found.dropna(subset=["ci_low"])[["ci_low", "ci_high"]]
        assert np.allclose(bars, sorted(map(tuple, expected.to_numpy())), atol=1e-5), name


def test_designs_are_called_as_the_study_calls_their_parts():
    with choices.holding(choices.Choices(names={"one_box": "a box"})):
        assert words.label("centre_slice/one_box/bidirectional/first_mask").split("/")[1] == "a box"
