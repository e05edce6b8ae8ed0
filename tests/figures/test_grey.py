"""What colour tells is told without it too: by shapes, dashes, and how light a colour is."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from medsam_nb.figures import claims, distance, fine_tuning, memory, slices, style


def grey(colour):
    """The grey of 0 to 255 that a colour becomes in print."""
    return 255 * float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114)))


def test_prompts_and_directions_have_shapes_of_their_own_and_greys_that_differ():
    for colours, markers in (
        (style.PROMPT_COLOURS, style.PROMPT_MARKERS),
        (style.DIRECTION_COLOURS, style.DIRECTION_MARKERS),
        (fine_tuning.COLOURS, fine_tuning.MARKERS),
    ):
        assert set(colours) == set(markers) and len(set(markers.values())) == len(markers)
        greys = [grey(colour) for _, colour in colours.items()]
        assert min(abs(one - other) for one, other in combinations(greys, 2)) > 20
    assert not set(style.PROMPT_MARKERS.values()) & set(style.DIRECTION_MARKERS.values())


def test_several_lines_findings_and_what_a_memory_holds_differ_in_more_than_colour():
    looks = [style.look_of(number)[1:] for number in range(7)]
    assert len({marker for marker, _ in looks}) == len({dash for _, dash in looks}) == 7
    assert len(set(claims.FINDING_MARKERS.values())) == len(claims.FINDING_COLOURS) == 4
    assert len({marker for marker, *_ in memory.READ.values()}) >= 3
    assert abs(grey(slices.MISSED) - grey(slices.EXCESS)) > 60
    assert grey(slices.MISSED) > 255 * slices.DIMMED + 30


@pytest.mark.parametrize(
    ("depths", "spacings", "said"),
    [
        ([16, 24, 24], [5.0, 2.0, 2.0], "16 slices 5 mm apart, 24 slices 2 mm apart"),
        ([16, 16, 24], [5.0, 2.0, 2.0], ""),  # a depth with two spacings, a spacing with two depths
        ([16, 24], [2.0, 2.0], ""),
        (list(range(10, 20)), list(np.linspace(1, 5, 10)), ""),  # by chance
    ],
)
def test_a_caption_says_where_depth_and_spacing_cannot_be_told_apart(depths, spacings, said):
    drawn = pd.DataFrame({"n_slices": depths, "spacing_z_mm": spacings})
    found = distance.depth_goes_with_spacing(drawn)
    assert (said in found) if said else found == ""


def test_pictures_of_one_case_show_the_same_part():
    image, here, there = np.zeros((60, 60), np.uint8), np.zeros((60, 60), bool), np.zeros((60, 60), bool)
    here[5:10, 5:10], there[40:45, 40:45] = True, True
    one, other = slices.with_one_view([slices.Panel(image, here), slices.Panel(image, there)])
    left, right, top, bottom = slices.field(one)
    assert slices.field(other) == (left, right, top, bottom)
    assert max(left, top) < 5 and min(right, bottom) > 44
