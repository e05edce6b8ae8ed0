"""What is unusual in a case is said, and its mosaic shows slices, outlines and the window."""

import tracemalloc

import numpy as np
import pandas as pd

from medsam_nb.data.mosaics import copy_mosaics, mosaic
from medsam_nb.data.prepared import case_table
from medsam_nb.data.quality import against_expected, case_warnings, object_facts
from medsam_nb.manifest.rows import DataSet
from medsam_nb.protocol.intensity import Intensity
from medsam_nb.protocol.volume import Case, Volume


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
    assert [ax.get_title() for ax in pictures] == [f"slice {z} (of 0 to 7)" for z in (3, 4, 5)]
    assert all(len(ax.collections) == 1 for ax in pictures)
    assert [line.get_xdata()[0] for line in histogram.lines] == [-100, 100]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["organ"]


def test_mosaic_tells_many_objects_apart():
    labels = np.zeros((1, 30, 40), np.uint8)
    for number in range(24):
        labels[0, 2 + 7 * (number // 6), 2 + 6 * (number % 6) : 5 + 6 * (number % 6)] = number + 1
    case = case_with(labels)
    case = Case("set", "one", "CT", case.image, labels, {f"object {n}": (n,) for n in range(1, 25)})
    picture, _ = mosaic(case).axes
    looks = {
        (tuple(drawn.get_edgecolor()[0]), str(drawn.get_linestyle()[0])) for drawn in picture.collections
    }
    assert len(looks) == 24


def test_a_mosaic_of_many_objects_takes_no_more_memory_than_one_of_few():
    labels = np.zeros((40, 160, 160), np.uint8)
    for number in range(60):
        labels[:, 2 * number : 2 * number + 2, 10:30] = number + 1
    case, peaks = case_with(labels), []
    mosaic(case)
    for count in (2, 60):
        objects = {f"object {n}": (n,) for n in range(1, count + 1)}
        tracemalloc.start()
        mosaic(Case("set", "one", "CT", case.image, labels, objects))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 5 * labels.size  # not a mask for each, on each of three slices


def line(case_id, status="ok", **more):
    given = {"data_set": "set", "case_id": case_id, "modality": "CT", "accuracy": True, "status": status}
    return given | {"labelled_slices": 3 if status == "ok" else None} | more


def test_gallery_is_bounded_and_shows_the_unusual_first(tmp_path):
    names = [f"case{number}" for number in range(5)]
    for name in names:
        (tmp_path / "prepared" / "set" / name).mkdir(parents=True)
        (tmp_path / "prepared" / "set" / name / "mosaic.png").write_bytes(name.encode())
    cases = case_table([line(n, warnings="tiny" if n == "case3" else "") for n in names])
    cases = pd.concat([cases, case_table([line("bad", "failed")])])
    found = copy_mosaics(cases, tmp_path / "prepared", tmp_path / "run", most=2)
    assert found == {
        "set (5 cases, 2 shown; all are prepared/set/*/mosaic.png)": [
            ("figures/mosaics/set/case0.png", ""),
            ("figures/mosaics/set/case3.png", "tiny"),
        ]
    }
    copied = sorted((tmp_path / "run").rglob("*.png"))
    assert [path.read_bytes() for path in copied] == [b"case0", b"case3"]


def test_what_is_missing_is_counted():
    fields = {"title": "Own", "modality": "CT", "dimension": 3, "objects": {"organ": [1]}}
    fields |= {"intensity": {"policy": "min_max"}, "layout": {"name": "msd"}}
    known = DataSet.model_validate(fields | {"name": "set", "expected": {"cases": 5, "study_masks": 9}})
    unknown = DataSet.model_validate(fields | {"name": "other"})
    cases = case_table(
        [
            line("a"),
            line("b"),
            line("c", "failed"),
            line("d", "no_object"),
            line("", "failed", data_set="other"),
        ]
    )
    table = against_expected([known, unknown], cases).set_index("data_set")
    columns = [
        "expected",
        "found",
        "difference",
        "usable",
        "without_object",
        "failed",
        "slices",
        "study_slices",
    ]
    assert table.loc["set", columns].tolist() == [5, 4, -1, 2, 1, 1, 6, 9]
    assert table.loc["other", "found"] == 0
    assert table.loc["other", ["expected", "difference", "study_slices"]].isna().all()
