"""The grid of 3D designs and the slices they prompt."""

import numpy as np
import pytest

from medsam_nb.errors import StudyError
from medsam_nb.protocol.designs import ALL_DESIGNS, PAPER_V1_DESIGNS, Design, prompted_slices, start_slice


def test_the_grid_has_64_designs_and_the_first_version_24():
    assert len(set(ALL_DESIGNS)) == 64
    assert len(set(PAPER_V1_DESIGNS)) == 24
    assert set(PAPER_V1_DESIGNS) < set(ALL_DESIGNS)
    assert {design.frame_choice for design in PAPER_V1_DESIGNS} == {
        "first_slice",
        "centre_slice",
        "largest_slice",
    }


def test_a_design_with_an_unknown_part_is_refused():
    with pytest.raises(StudyError, match="middle_slice"):
        Design("middle_slice", "one_box", "bidirectional", "first_mask")


@pytest.mark.parametrize(
    ("count", "corrected", "released"),
    [
        (1, (0,), (0,)),
        (2, (1,), (0, 1)),
        (3, (1, 2), (0, 1, 2)),
        (4, (1, 2, 3), (0, 1, 2)),
        (5, (1, 3, 4), (1, 2, 3)),
        (7, (2, 4, 5), (1, 2, 3)),
        (8, (2, 4, 6), (0, 2, 4)),
        (9, (2, 5, 7), (2, 4, 6)),
        (40, (10, 20, 30), (0, 10, 20)),
    ],
)
def test_three_slices_under_both_protocols(count, corrected, released):
    areas = np.zeros(count + 5, int)
    areas[3 : 3 + count] = 7
    for protocol, expected in (("corrected", corrected), ("released", released)):
        assert prompted_slices(areas, "three_slices", protocol) == tuple(3 + i for i in expected)


def test_gaps_in_an_object_are_never_prompted():
    areas = np.array([0, 4, 0, 0, 9, 9, 0, 2])
    assert prompted_slices(areas, "first_slice") == (1,)
    assert prompted_slices(areas, "centre_slice") == (5,)
    assert prompted_slices(areas, "largest_slice") == (4,)
    assert set(prompted_slices(areas, "three_slices")) <= {1, 4, 5, 7}


def test_propagation_turns_at_the_middle_of_three():
    assert start_slice((4,)) == 4
    assert start_slice((2, 5, 9)) == 5


def test_an_absent_object_has_no_slice():
    with pytest.raises(ValueError, match="without a voxel"):
        prompted_slices(np.zeros(4), "first_slice")
