"""Arrays in .npz and HDF5 files: what is there is read as it is, and nothing in a file is run."""

import pickle
import zipfile

import numpy as np
import pytest

from medsam_nb.data import quality
from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders, load_case
from medsam_nb.manifest.rows import DataSet

SHAPE = (6, 20, 24)
IMAGE = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
LABELS = np.zeros(SHAPE, np.uint8)
LABELS[2:5, 4:10, 6:12] = 1
LABELS[3:5, 12:18, 6:12] = 2
SPACING_XYZ = np.array([0.7, 0.8, 2.5])


def row(name="npz", dimension=3, **more):
    layout = {"name": name, "images": "{case}.npz" if name == "npz" else "{case}.h5"} | more.pop("layout", {})
    fields = {
        "name": "own", "title": "Own", "modality": "CT", "dimension": dimension, "layout": layout,
        "objects": {"organ": [1], "tumour": [2]}, "intensity": {"policy": "stored"},
    }  # fmt: skip
    return DataSet.model_validate(fields | more)


def save(root, name, **arrays):
    path = root / "raw" / "own" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    return path


def save_hdf5(root, name, attributes=(), **arrays):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed: `pip install h5py`")
    path = root / "raw" / "own" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file.create_dataset(key, data=array, compression="gzip")
            file[key].attrs.update(dict(attributes))
    return path


def prepared(root, made):
    return prepare(made, root / "raw", root / "prepared", progress=False).set_index("case_id")


def only_case(root):
    (folder,) = case_folders(root / "prepared", "own")
    return load_case(folder)


def test_a_file_of_the_challenges_is_read_voxel_by_voxel(tmp_path):
    boxes = np.array([{"z_min": 2, "z_max": 4}], dtype=object)  # pickled in the file, and not read
    save(tmp_path, "CT_Abd_1.npz", imgs=IMAGE, gts=LABELS, spacing=SPACING_XYZ, boxes=boxes)
    table = prepared(tmp_path, row())
    assert table.status.to_dict() == {"CT_Abd_1": "ok"}, list(table.error)
    case = only_case(tmp_path)
    assert np.array_equal(case.image.array, IMAGE) and np.array_equal(case.labels, LABELS)
    assert case.image.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    assert table.plane["CT_Abd_1"] == "axial" and "states no spacing" not in table.warnings["CT_Abd_1"]


def test_a_picture_with_colours_in_an_npz(tmp_path):
    colours = np.random.default_rng(1).integers(0, 255, (20, 24, 3)).astype(np.uint8)
    save(tmp_path, "us_1.npz", imgs=colours, gts=LABELS[3])
    table = prepared(tmp_path, row(dimension=2, colour="rgb"))
    assert table.status.to_dict() == {"us_1": "ok"}, list(table.error)
    case = only_case(tmp_path)
    assert np.array_equal(case.colours[0], colours) and np.array_equal(case.labels[0], LABELS[3])
    assert table.spacing_mm["us_1"] == ""  # a picture has no millimetres
    assert prepared(tmp_path, row(dimension=2)).status.to_dict() == {"us_1": "ok"}
    grey = only_case(tmp_path)
    assert grey.colours is None and grey.image.array.shape == (1, 20, 24)


def test_masks_in_files_of_their_own_and_axes_as_nibabel_has_them(tmp_path):
    save(tmp_path, "images/p1.npz", data=IMAGE.T)
    save(tmp_path, "truth/p1.npz", seg=LABELS.T)
    save(tmp_path, "truth/p2.npz", seg=LABELS.T)
    layout = {
        "images": "images/{case}.npz", "masks": "truth/{case}.npz", "image": "data", "mask": "seg",
        "axes": "xyz", "spacing_mm": [2.5, 0.8, 0.7],
    }  # fmt: skip
    table = prepared(tmp_path, row(layout=layout))
    assert table.status.to_dict() == {"p1": "ok", "p2": "failed"}
    assert "images/p2.npz: there is no such file" in table.error["p2"]
    case = only_case(tmp_path)
    assert np.array_equal(case.image.array, IMAGE) and np.array_equal(case.labels, LABELS)
    assert case.image.spacing_mm == pytest.approx((2.5, 0.8, 0.7))


def test_another_array_of_the_same_file_is_another_case(tmp_path):
    """The fingerprint holds which arrays are meant, so that nothing prepared before is taken for it."""
    save(tmp_path, "a.npz", imgs=IMAGE, other=IMAGE[::-1], gts=LABELS, spacing=SPACING_XYZ)
    first = prepared(tmp_path, row())
    second = prepared(tmp_path, row(layout={"image": "other"}))
    assert first.data_sha256["a"] != second.data_sha256["a"]
    assert np.array_equal(only_case(tmp_path).image.array, IMAGE[::-1])


def test_without_a_spacing_the_case_table_says_so(tmp_path):
    save(tmp_path, "a.npz", imgs=IMAGE, gts=LABELS)
    assert "states no spacing: voxels count as cubes of 1 mm" in prepared(tmp_path, row()).warnings["a"]


def test_patients_and_other_files_are_told(tmp_path):
    for name in ("P1_a.npz", "P1_b.npz", "notes/x.npz"):
        save(tmp_path, name, imgs=IMAGE, gts=LABELS, spacing=SPACING_XYZ)
    table = prepared(tmp_path, row(layout={"images": "{patient}_{case}.npz"}))
    assert table.patient_id.to_dict() == {"P1_a": "P1", "P1_b": "P1"}
    assert any(
        "1 files fit no pattern: notes/x.npz" in one for one in quality.plausibility(table.reset_index())
    )


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"image": IMAGE, "gts": LABELS}, "it has no array 'imgs'; it has image, gts. Name one of them as"),
        ({"imgs": IMAGE}, "it has no array 'gts'; it has imgs. Name one of them as `mask`"),
        ({"imgs": np.array([{}]), "gts": LABELS}, "'imgs' holds Python objects, which could run code"),
        ({"imgs": IMAGE[0], "gts": LABELS[0]}, "has shape (20, 24) and type uint8. The row says dimension 3"),
        ({"imgs": IMAGE, "gts": LABELS[:4]}, "the image has shape (6, 20, 24), the mask (4, 20, 24)"),
        ({"imgs": IMAGE, "gts": LABELS, "spacing": np.ones(2)[:1]}, "its spacing has shape (1,)"),
        ({"imgs": IMAGE, "gts": LABELS, "spacing": np.array([1.0, 0, 1])}, "all voxels in one plane"),
        ({"imgs": IMAGE.astype(complex), "gts": LABELS}, "type complex128"),
    ],
)
def test_what_cannot_be_meant_is_a_failed_case(tmp_path, arrays, words):
    save(tmp_path, "good.npz", imgs=IMAGE, gts=LABELS)
    save(tmp_path, "bad.npz", **arrays)
    table = prepared(tmp_path, row())
    assert table.status.to_dict() == {"good": "ok", "bad": "failed"}
    assert words in table.error["bad"] and "bad.npz" in table.error["bad"]


def test_nothing_hostile_is_run_allocated_or_believed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    place = tmp_path / "raw" / "own"
    save(tmp_path, "good.npz", imgs=IMAGE, gts=LABELS)
    (place / "pickle.npz").write_bytes(pickle.dumps(Bomb()))
    save(tmp_path, "object.npz", imgs=np.array([Bomb()], dtype=object), gts=LABELS)
    header = (
        b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (9999999, 99999, 99), }"
    )
    with zipfile.ZipFile(place / "huge.npz", "w") as archive:
        archive.writestr("imgs.npy", header.ljust(127) + b"\n")
        archive.writestr("gts.npy", header.ljust(127) + b"\n")
    whole = (place / "good.npz").read_bytes()
    (place / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (place / "empty.npz").write_bytes(b"")
    table = prepared(tmp_path, row())
    bad = ("pickle", "object", "huge", "cut", "empty")
    assert table.status.to_dict() == dict.fromkeys(bad, "failed") | {"good": "ok"}
    assert "GiB to prepare" in table.error["huge"] and "is no .npz file" in table.error["cut"]
    assert not (tmp_path / "ran").exists()


def test_hdf5_by_the_names_of_its_data_sets(tmp_path):
    save_hdf5(
        tmp_path, "case_1.h5", {"voxel_mm": SPACING_XYZ[::-1]}, **{"scan/ct": IMAGE, "scan/seg": LABELS}
    )
    layout = {"image": "scan/ct", "mask": "scan/seg", "spacing": "voxel_mm", "spacing_axes": "zyx"}
    table = prepared(tmp_path, row("hdf5", layout=layout))
    assert table.status.to_dict() == {"case_1": "ok"}, list(table.error)
    case = only_case(tmp_path)
    assert np.array_equal(case.image.array, IMAGE) and np.array_equal(case.labels, LABELS)
    assert case.image.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    table = prepared(tmp_path, row("hdf5", layout=layout | {"mask": "scan/labels"}))
    assert "it has no array 'scan/labels'; it has scan/ct, scan/seg" in table.error["case_1"]
    table = prepared(tmp_path, row("hdf5", layout=layout | {"spacing": "pixdim"}))
    assert "it has no spacing 'pixdim'" in table.error["case_1"]


def test_hdf5_whose_data_lie_elsewhere_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed: `pip install h5py`")
    secret = save_hdf5(tmp_path, "secret.hdf", imgs=IMAGE)
    place = secret.parent
    with h5py.File(place / "linked.h5", "w") as file:
        file["gts"], file["imgs"] = LABELS, h5py.ExternalLink("secret.hdf", "imgs")
    with h5py.File(place / "stored.h5", "w") as file:
        file["gts"] = LABELS
        file.create_dataset("imgs", SHAPE, "u1", external=[(str(secret), 0, IMAGE.nbytes)])
    (place / "text.h5").write_text("no HDF5", encoding="utf-8")
    table = prepared(tmp_path, row("hdf5"))
    assert set(table.status) == {"failed"} and list(table.index) == ["linked", "stored", "text"]
    assert "lie in another file" in table.error["stored"]
    assert "it has no array 'imgs'" in table.error["linked"]  # a link to another file is not followed
    assert "text.h5: cannot be read" in table.error["text"]


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ({"spacing": "s", "spacing_mm": [1.0, 1, 1]}, "give `spacing`, a name in the files, or `spacing_mm`"),
        ({"images": "{case}_{part}.npz"}, "one file holds all masks of a case"),
        (
            {"images": "{patient}/{case}.npz", "masks": "{case}.npz"},
            "`{patient}` must stand in both patterns",
        ),
        ({"images": "a.npz"}, "String should match pattern"),
        ({"axes": "zxy"}, "Input should be 'zyx' or 'xyz'"),
    ],
)
def test_rows_that_cannot_be_meant(layout, words):
    with pytest.raises(ValueError) as caught:
        row(layout=layout)
    assert words in str(caught.value)
