"""What is unusual in a case is said, and its mosaic shows slices, outlines and the window."""

import numpy as np

from medsam_nb.intensity import Intensity
from medsam_nb.quality import case_warnings, mosaic, object_facts
from medsam_nb.volume import Case, Volume


def case_with(labels, spacing=(1.0, 1.0, 1.0), intensity=Intensity("window", -100, 100)):  # noqa: B008
    array = np.random.default_rng(0).normal(0, 30, labels.shape).astype(np.float32)
    return Case("set", "one", "CT", Volume.from_spacing(array, spacing), labels, {"organ": (1,)}, intensity)


def warnings_of(case):
    return case_warnings(case, [object_facts(name, case.mask(name)) for name in case.objects])


def block():
    labels = np.zeros((8, 30, 30), np.uint8)
    labels[2:6, 5:15, 5:15] = 1
    return labels


def test_facts_of_a_mask():
    labels = block()
    labels[6, 20, 20] = 1
    fact = object_facts("organ", labels == 1)
    assert (fact.voxels, fact.components, fact.first_slice, fact.last_slice, fact.largest_area) == (
        401,
        2,
        2,
        6,
        100,
    )


def test_usual_case_has_no_warning():
    assert warnings_of(case_with(block())) == []


def test_unusual_cases_are_named():
    tiny = np.zeros((8, 30, 30), np.uint8)
    tiny[3, 4, 4:8] = 1
    words = " ".join(warnings_of(case_with(tiny, (5.0, 1.0, 2.0))))
    for expected in ("organ is tiny: at most 4 pixels", "on one slice only", "anisotropic", "not square"):
        assert expected in words
    scattered = np.zeros((8, 30, 30), np.uint8)
    scattered[4, ::4, ::4] = 1
    assert "organ has 64 components" in " ".join(warnings_of(case_with(scattered)))
    clipped = warnings_of(case_with(block(), intensity=Intensity("window", -5, 5)))
    assert sum("after windowing" in warning for warning in clipped) == 2


def test_mosaic_shows_slices_and_window():
    labels = block()
    labels[1:8] = labels[2]
    figure = mosaic(case_with(labels))
    *pictures, histogram = figure.axes
    assert [ax.get_title() for ax in pictures] == ["slice 3 of 8", "slice 4 of 8", "slice 5 of 8"]
    assert all(len(ax.collections) == 1 for ax in pictures)
    assert [line.get_xdata()[0] for line in histogram.lines] == [-100, 100]
