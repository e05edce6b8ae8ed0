"""A study's figures show some designs and prompts; what is not drawn is still tabulated and tested."""

import re

import matplotlib as mpl
import pandas as pd
import pytest
from helpers.made_up import made_up_table
from pydantic import ValidationError

from medsam_nb import figures
from medsam_nb.figures import choices, designs, models, prompts, style
from medsam_nb.statistics import rankings
from medsam_nb.workbook import printed

mpl.use("agg")
SOME = {"prompt": ["one_box", "mask"], "frame_choice": ["centre_slice"]}
CHOSEN = choices.Choices(designs=SOME, prompts=["one_box", "one_point"])
BOTH = ("miniature_sam2", "miniature_sam")


@pytest.fixture(scope="module")
def table():
    return made_up_table(cases=6)


def drawn(draw, rows):
    """What a figure returns, and the colours and places of its points from top to bottom."""
    with style.style():
        figure, ax = style.canvas(120, 95)
        plotted = draw(rows, ax)
        marks = [(line.get_xdata()[0], line.get_color()) for line in ax.lines if len(line.get_xdata()) == 1]
        names = [text.get_text() for text in ax.get_yticklabels()]
        mpl.pyplot.close(figure)
    return plotted, marks, names


@pytest.mark.parametrize("draw", [designs.iou_by_design, designs.design_heat_map, designs.design_ranking])
def test_a_figure_of_designs_shows_those_of_the_style_as_it_shows_them_among_all(draw, table):
    whole, all_marks, all_names = drawn(draw, table)
    with choices.holding(CHOSEN):
        rows, said = figures.drawn_designs(table)
        some, marks, names = drawn(draw, rows)
    assert said == " 8 of 64 designs are drawn." and len(some) == 8 and len(whole) == 64
    kept = whole["prompt"].isin(SOME["prompt"]) & whole["frame_choice"].eq("centre_slice")
    pd.testing.assert_frame_equal(
        some.drop(columns="shown", errors="ignore"),
        whole[kept].drop(columns="shown", errors="ignore").reset_index(drop=True),
    )
    assert set(marks) <= set(all_marks) or draw is designs.design_ranking  # which leaves out the middle
    if draw is not designs.design_ranking:
        assert names == [name for name in all_names if re.fullmatch("(one box|mask), centre slice", name)]


def test_a_figure_of_prompts_shows_those_of_the_style_in_their_usual_order_and_colour(table):
    of_model = table[table["model"] == BOTH[0]]
    whole, all_marks, _ = drawn(prompts.iou_by_prompt_2d, of_model)
    with choices.holding(CHOSEN):
        rows, said = figures.drawn_prompts(of_model)
        some, marks, _ = drawn(prompts.iou_by_prompt_2d, rows)
        both, _ = figures.drawn_prompts(table)
        crosses, _, _ = drawn(lambda t, ax: models.sam2_against_sam(t, ax, *BOTH), both)
    assert said == " 2 of 4 prompts are drawn."
    kept = whole[whole["prompt"].isin(["one_point", "one_box"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(some, kept)
    point, box = (style.PROMPT_COLOURS[name] for name in ("one_point", "one_box"))
    assert [colour for _, colour in marks] == [point, box] * 3 and set(marks) < set(all_marks)
    assert set(crosses["prompt"]) == {"one_point", "one_box"}


def test_without_a_choice_all_is_drawn_and_nothing_is_said(table):
    for take, task in ((figures.drawn_designs, "3d"), (figures.drawn_prompts, "2d")):
        rows, said = take(table)
        pd.testing.assert_frame_equal(rows, table[table["task"] == task])
        assert said == ""


def test_what_is_not_drawn_is_in_tables_and_tests(table):
    rows = table[table["model"] == BOTH[0]]
    flat = rows[rows["task"] == "2d"]
    found = (
        rankings.designs_by_mean(rows),
        rankings.rank_designs(rows).ranks,
        printed.data_sets_table(flat),
    )
    with choices.holding(CHOSEN):
        again = (
            rankings.designs_by_mean(rows),
            rankings.rank_designs(rows).ranks,
            printed.data_sets_table(flat),
        )
    assert len(found[0]) == len(found[1]) == 64
    for one, other in zip(found, again, strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_prompts_of_a_file_are_always_drawn(table):
    by_hand = {"prompt": "given", "frame_choice": "given"}
    deep = table[table["task"] == "3d"].assign(**by_hand)
    flat = table[table["task"] == "2d"].assign(prompt="given")
    with choices.holding(choices.Choices(designs={"direction": "bidirectional"}, prompts="one_box")):
        rows, said = figures.drawn_designs(deep)
        assert set(rows["direction"]) == {"bidirectional"} and said == " 2 of 4 designs are drawn."
        rows, said = figures.drawn_prompts(flat)
        assert len(rows) == len(flat) and said == ""


def test_designs_are_chosen_as_a_study_chooses_them(tmp_path):
    name = "centre_slice/one_box/bidirectional/first_mask"
    for wanted, many in (("all", 64), ("paper_v1", 24), (name, 1), ([name], 1), ({"prompt": "mask"}, 16)):
        choices.keep(choices.Choices(designs=wanted), tmp_path)
        assert len(choices.chosen_designs(choices.kept(tmp_path).designs)) == many
    assert choices.Choices(prompts="all") == choices.Choices()
    for wrong, message in (
        ({"designs": {"prompt": "one_bx"}}, "'one_bx' is no known prompt. Did you mean 'one_box'"),
        ({"designs": "papr_v1"}, "Did you mean 'paper_v1'"),
        ({"designs": {"prompt": []}}, "leaves no design"),
        ({"prompts": ["one_pont"]}, "Did you mean 'one_point'"),
        ({"prompts": []}, "at least 1"),
    ):
        with pytest.raises(ValidationError, match=re.escape(message)):
            choices.Choices(**wrong)
