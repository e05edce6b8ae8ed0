"""DICOM segmentations as archives publish them: every frame in its place, or refused by name."""

import numpy as np
import pytest
from helpers import dicom as write

from medsam_nb.data.formats import read_volume
from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders, load_case
from medsam_nb.data.segments import find_segments
from medsam_nb.errors import InputError
from medsam_nb.manifest.rows import DataSet

SHAPE = (5, 12, 16)
IMAGE = np.random.default_rng(0).integers(0, 2000, SHAPE).astype(np.uint16)


@pytest.fixture
def series(tmp_path):
    write.write_series(tmp_path / "raw" / "own" / "ct", IMAGE)
    return tmp_path / "raw" / "own"


def masks():
    """Three blocks; the third overlaps the first."""
    found = np.zeros((3, *SHAPE), bool)
    found[0, 1:4, 2:6, 3:9] = True
    found[1, 2:5, 7:11, 1:5] = True
    found[2, 1:2, 4:8, 5:12] = True
    return found


def frames_of(found, shift=(0.0, 0.0)):
    """Return the frames that hold something, in an order of archives (last first), with their groups."""
    shown = [(s, z) for s in range(len(found)) for z in range(SHAPE[0]) if found[s, z].any()][::-1]
    frames = np.stack([found[s, z] for s, z in shown])
    return frames, [write.frame_group((shift[0], shift[1], 3 * z), s + 1) for s, z in shown]


def row(segments, **more):
    case = {"case_id": "a", "image": "ct", "mask": "seg.dcm", "segments": segments}
    fields = {
        "name": "own", "title": "Own", "modality": "CT", "dimension": 3,
        "intensity": {"policy": "percentile"},
        "objects": {name: [number] for number, name in enumerate(segments, 1)}, "slice_axis": "stored",
        "layout": {"name": "listed", "cases": [case]},
    }  # fmt: skip
    return DataSet.model_validate(fields | more)


def prepared(series, segments, **more):
    root = series.parents[1]
    table = prepare(row(segments, **more), root / "raw", root / "prepared", progress=False)
    if table.status[0] != "ok":
        return table.error[0], None
    return table.warnings[0], load_case(case_folders(root / "prepared", "own")[0])


def test_frames_in_any_order_without_empty_ones(series):
    write.write_segmentation(series / "seg.dcm", *frames_of(masks()), ["Liver", "Spleen", "Vessel"])
    words, case = prepared(series, {"organ": "liver", "spleen": "Spleen", "vessel": "#3"})
    assert "masks overlap" in words
    for name, mask in zip(("organ", "spleen", "vessel"), masks(), strict=True):
        assert np.array_equal(case.mask(name), mask)


def test_segments_of_one_name_are_united_or_chosen_by_number(series):
    write.write_segmentation(series / "seg.dcm", *frames_of(masks()), ["Lesion", "Spleen", "lesion"])
    words, case = prepared(series, {"lesion": "Lesion"})
    assert "lesion: 2 segments of one name united" in words
    assert np.array_equal(case.mask("lesion"), masks()[0] | masks()[2])
    _, case = prepared(series, {"first": "#1", "second": "#3"})
    assert np.array_equal(case.mask("second"), masks()[2])
    words, _ = prepared(series, {"lesion": "Kidney"})
    assert "no segment for lesion; there are: #1 Lesion; #2 Spleen; #3 lesion." in words


def test_fractions_that_are_all_or_nothing_are_a_mask(series):
    frames, groups = frames_of(masks()[:1])
    write.write_segmentation(series / "seg.dcm", frames * 255, groups, ["Liver"], kind="FRACTIONAL")
    _, case = prepared(series, {"organ": "Liver"})
    assert np.array_equal(case.mask("organ"), masks()[0])
    write.write_segmentation(series / "seg.dcm", frames * 200, groups, ["Liver"], kind="FRACTIONAL")
    words, _ = prepared(series, {"organ": "Liver"})
    assert "fractional (soft) segmentation: 2 values up to 200 of 255" in words


def test_a_label_map_of_segments(series):
    labels = np.zeros(SHAPE, np.uint8)
    labels[masks()[0]], labels[masks()[1]] = 1, 2
    groups = [write.frame_group((0, 0, 3 * z)) for z in range(SHAPE[0])]
    write.write_segmentation(series / "seg.dcm", labels, groups, ["Liver", "Spleen"], kind="LABELMAP")
    _, case = prepared(series, {"liver": "Liver", "spleen": "Spleen"})
    assert np.array_equal(case.mask("liver"), labels == 1) and np.array_equal(
        case.mask("spleen"), labels == 2
    )


def test_frames_that_do_not_say_what_they_show(series):
    frames, groups = frames_of(masks()[:1])
    for group in groups:
        del group.SegmentIdentificationSequence
    write.write_segmentation(series / "seg.dcm", frames, groups, ["Liver"])
    _, case = prepared(series, {"organ": "Liver"})  # there is only one segment
    assert np.array_equal(case.mask("organ"), masks()[0])
    write.write_segmentation(series / "seg.dcm", frames, groups, ["Liver", "Spleen"])
    words, _ = prepared(series, {"organ": "Liver"})
    assert "its frames do not say which of the 2 segments they show" in words


def test_frames_that_do_not_say_where_they_lie(series):
    frames, groups = frames_of(masks()[:1])
    del groups[0].PlanePositionSequence
    write.write_segmentation(series / "seg.dcm", frames, groups, ["Liver"])
    assert "its frames do not say where they lie" in prepared(series, {"organ": "Liver"})[0]


def test_a_shift_by_half_a_voxel_is_said(series):
    write.write_segmentation(series / "seg.dcm", *frames_of(masks()[:1], shift=(0.4, 0.4)), ["Liver"])
    words, _ = prepared(series, {"organ": "Liver"})
    assert "shifted by half a voxel along y, x: a corner was taken for a centre" in words
    write.write_segmentation(series / "seg.dcm", *frames_of(masks()[:1], shift=(0.8, -1.6)), ["Liver"])
    _, case = prepared(series, {"organ": "Liver"})  # whole voxels: it was cut from a larger picture
    assert np.array_equal(case.mask("organ"), np.roll(masks()[0], (-2, 1), (1, 2)))


def test_a_part_of_the_image_and_what_lies_outside(series):
    found = masks()[0]
    frames = np.stack([found[z, 2:8, 3:12] for z in range(1, 4)])
    groups = [write.frame_group((3 * 0.8, 2 * 0.8, 3 * z), 1) for z in range(1, 4)]
    write.write_segmentation(series / "seg.dcm", frames, groups, ["Liver"])
    _, case = prepared(series, {"organ": "Liver"})
    assert np.array_equal(case.mask("organ"), found)
    groups = [write.frame_group((3 * 0.8, 2 * 0.8, 3 * z), 1) for z in range(3, 6)]
    write.write_segmentation(series / "seg.dcm", frames, groups, ["Liver"])
    assert "labelled voxels lie outside the image" in prepared(series, {"organ": "Liver"})[0]


def test_contours_in_the_place_of_a_segmentation(series):
    made = write.base(write.RTSTRUCT, "RTSTRUCT")
    write.save(made, series / "seg.dcm")
    assert "is not a DICOM segmentation but RTSTRUCT" in prepared(series, {"organ": "Liver"})[0]


def test_segments_of_an_oblique_image(tmp_path):
    """Frames are placed by the image's own axes, whichever of the body's axes these are next to."""
    cos, sin = np.cos(np.pi / 4), np.sin(np.pi / 4)
    axes = (cos, sin, 0, 0, 0, -1)
    normal = np.cross(axes[:3], axes[3:])
    for z in range(SHAPE[0]):
        write.write_slice(tmp_path / "ct" / f"{z}.dcm", IMAGE[z], 3 * z * normal, z, orientation=axes)
    frames = masks()[0, 1:4]
    groups = [write.frame_group(3 * z * normal, 1) for z in range(1, 4)]
    for group in groups:
        plane = write.Dataset()
        plane.ImageOrientationPatient = [float(value) for value in axes]
        group.PlaneOrientationSequence = [plane]
    write.write_segmentation(tmp_path / "seg.dcm", frames, groups, ["Liver"])
    (segment,) = find_segments(tmp_path / "seg.dcm")
    assert np.array_equal(segment.on(read_volume(tmp_path / "ct"), tmp_path), masks()[0])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        find_segments(tmp_path / "seg.dcm")


def test_activity_is_not_shown_by_a_window_of_suv(tmp_path):
    window, percentile = {"policy": "window", "low": 0, "high": 10}, {"policy": "percentile"}
    labels = masks()[:1]
    for unit, intensity, fits in (("BQML", window, False), ("BQML", percentile, True), ("GML", window, True)):
        place = tmp_path / f"{unit}_{intensity['policy']}"
        series = place / "raw" / "own"
        write.write_series(series / "ct", IMAGE, kind=write.PET, Modality="PT", Units=unit, slope=0.01)
        write.write_segmentation(series / "seg.dcm", *frames_of(labels), ["Lesion"])
        words, case = prepared(series, {"lesion": "Lesion"}, intensity=intensity)
        assert (case is not None) == fits
        assert fits or ("its values are BQML, no SUV" in words and "`policy: percentile`" in words)
