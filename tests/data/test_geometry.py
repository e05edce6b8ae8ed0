"""Where voxels lie: units, tolerances in voxels, right angles, the plane of a data set, what no body is."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medsam_nb.data import reading
from medsam_nb.data.formats import read_volume
from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders, load_case, prepared_cases
from medsam_nb.errors import InputError
from medsam_nb.manifest.rows import DataSet
from medsam_nb.protocol.volume import Volume, place, require_same_grid, slice_plane

SHAPE = (6, 20, 24)  # (z, y, x)


def arrays(shape=SHAPE, seed=0):
    image = np.random.default_rng(seed).integers(-900, 900, shape).astype(np.int16)
    labels = np.zeros(shape, np.uint8)
    labels[:, 5:10, 6:12] = 1
    return image, labels


def row(**more):
    fields = {
        "name": "own", "title": "Own", "modality": "CT", "dimension": 3, "objects": {"organ": [1]},
        "intensity": {"policy": "percentile"}, "layout": {"name": "nifti_pairs"},
    }  # fmt: skip
    return DataSet.model_validate(fields | more)


def write(root, name="a", affine=None, mask_affine=None, unit="mm", mask_unit=None, shape=SHAPE):
    affine = np.diag([1, 1, 3, 1.0]) if affine is None else affine
    places = (affine, affine if mask_affine is None else mask_affine)
    for folder, array, where, said in zip(
        ("images", "labels"), arrays(shape), places, (unit, mask_unit or unit), strict=True
    ):
        image = nib.Nifti1Image(array.T, where)
        image.header.set_xyzt_units(said)
        (root / "raw" / "own" / folder).mkdir(parents=True, exist_ok=True)
        nib.save(image, root / "raw" / "own" / folder / f"{name}.nii.gz")


def prepared(root, **more):
    return prepare(row(**more), root / "raw", root / "prepared", progress=False).set_index("case_id")


@pytest.mark.parametrize(
    ("unit", "factor"), [("micron", 1e-3), ("meter", 1e3), ("unknown", 1.0), ("mm", 1.0)]
)
def test_units_of_nifti_become_millimetres(tmp_path, unit, factor):
    stored = nib.Nifti1Image(arrays()[0].T, np.diag([0.5, 0.5, 0.9, 1.0]))
    stored.header.set_xyzt_units(unit)
    nib.save(stored, tmp_path / "b.nii.gz")
    volume = read_volume(tmp_path / "b.nii.gz")
    assert volume.spacing_mm == pytest.approx((0.9 * factor, 0.5 * factor, 0.5 * factor))
    assert volume.remarks == ((f"header in {unit}, turned into mm",) if factor != 1 else ())


@pytest.mark.parametrize(
    ("suffix", "entry"), [(".nrrd", 'space units: "um" "um" "um"'), (".mha", "DistanceUnits = um")]
)
def test_units_of_text_headers_become_millimetres(tmp_path, suffix, entry):
    image = sitk.GetImageFromArray(arrays()[0])
    image.SetSpacing((10, 10, 30))
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"), useCompression=False)
    data = (tmp_path / f"a{suffix}").read_bytes()
    anchor = b"kinds:" if suffix == ".nrrd" else b"ElementType"
    (tmp_path / f"a{suffix}").write_bytes(data.replace(anchor, entry.encode() + b"\n" + anchor, 1))
    volume = read_volume(tmp_path / f"a{suffix}")
    assert volume.spacing_mm == pytest.approx((0.03, 0.01, 0.01)) and "um" in volume.remarks[0]
    (tmp_path / f"a{suffix}").write_bytes(data)
    assert read_volume(tmp_path / f"a{suffix}").spacing_mm == pytest.approx((30, 10, 10))


def test_image_and_mask_in_different_units(tmp_path):
    affine = np.diag([10, 10, 30, 1.0])
    write(tmp_path, affine=affine, unit="micron", mask_unit="mm")
    message = prepared(tmp_path).error["a"]
    assert "One header is in micrometres, the other in millimetres" in message
    small = affine.copy()
    small[:3] *= 1e-3
    write(tmp_path, affine=affine, unit="micron", mask_affine=small, mask_unit="mm")
    assert prepared(tmp_path).status["a"] == "ok"  # two ways to say the same


@pytest.mark.parametrize("scale", [1e-3, 1.0, 5.0])
def test_tolerance_is_a_part_of_a_voxel(scale):
    image = Volume(arrays()[0], np.diag([3, 1, 1, 1.0]) * scale)
    image.affine[3, 3] = 1
    for shift, fits in ((0.1, True), (0.5, False), (-0.3, False), (1.0, False)):
        moved = image.affine.copy()
        moved[:3, 3] += image.affine[:3, 2] * shift
        mask = Volume(arrays()[1], moved)
        if fits:
            require_same_grid(image, mask, "mask")
            assert np.array_equal(place(mask, SHAPE, image.affine, "mask"), mask.array)
            continue
        with pytest.raises(InputError, match="apart in space"):
            require_same_grid(image, mask, "mask")
        if shift % 1:
            with pytest.raises(
                InputError, match="half a voxel along x" if shift == 0.5 else "do not coincide"
            ):
                place(mask, SHAPE, image.affine, "mask")


def skewed(degrees):
    affine = np.diag([1, 1, 3, 1.0])
    affine[1, 2] = 3 * np.tan(np.deg2rad(degrees))
    return affine


def test_shear_is_refused_and_rounding_is_not(tmp_path):
    write(tmp_path, "straight", skewed(0.1))
    write(tmp_path, "sheared", skewed(8))
    table = prepared(tmp_path)
    assert table.status.to_dict() == {"straight": "ok", "sheared": "failed"}
    assert "its axes are 8.0 degrees off right angles" in table.error["sheared"]


@pytest.mark.parametrize("degrees", [45, 135, -45, 44.9999])
@pytest.mark.parametrize("plane", [(0, 1), (0, 2), (1, 2)])
def test_oblique_pairs_whose_nearest_axes_differ_by_rounding(tmp_path, degrees, plane):
    def turned(extra):
        angle, affine = np.deg2rad(degrees) + extra, np.eye(4)
        affine[np.ix_(plane, plane)] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        return affine @ np.diag([1.1, 0.9, 3, 1])

    write(tmp_path, affine=turned(1e-6), mask_affine=turned(-1e-6))
    table = prepared(tmp_path)
    assert table.error["a"] == ""
    case = load_case(case_folders(tmp_path / "prepared", "own")[0])
    image, labels = arrays()
    assert set(case.image.array[case.mask("organ")]) <= set(image[labels > 0])
    assert case.mask("organ").sum() == labels.sum()


@pytest.mark.parametrize(
    ("codes", "spacing", "shape", "plane"),
    [
        ("RAS", (0.8, 0.8, 5.0), SHAPE, "axial"),
        ("RAS", (5.469, 5.469, 3.27), SHAPE, "axial"),  # PET: pixels wider than slices are apart
        ("RAS", (0.8, 0.8, 0.5), SHAPE, "axial"),  # CT with slices that overlap
        ("RAS", (4.0, 0.9, 0.9), SHAPE, "sagittal"),
        ("RAS", (0.5, 0.9, 0.9), SHAPE, "sagittal"),
        ("RAS", (0.9, 4.0, 0.9), SHAPE, "coronal"),
        ("RAS", (0.9, 4.0, 1.0), SHAPE, "coronal"),
        ("RAS", (1.0, 1.0, 1.0), SHAPE, "axial"),
        ("PSR", (1.0, 1.0, 4.0), SHAPE, "sagittal"),
        ("RAS", (1.0, 1.0, 0.5), (1, 20, 24), "axial"),  # one slice
        ("RAS", (1.0, 3.0, 1.0), (20, 1, 24), "coronal"),
        ("RAS", (1.0, 1.0, 1.0), (20, 1, 24), "coronal"),
    ],
)
def test_plane_of_the_slices(codes, spacing, shape, plane):
    axes = nib.orientations.axcodes2ornt(codes)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, (axis, flip) in enumerate(axes):
        affine[int(axis), column] = flip * spacing[column]
    volume = Volume(np.zeros(shape), affine[:, [2, 1, 0, 3]])
    assert slice_plane(volume) == plane


def test_one_slice_is_not_cut_sideways(tmp_path):
    write(tmp_path, affine=np.diag([1, 1, 0.5, 1.0]), shape=(1, 20, 24))
    assert "has 1 slice(s) of 20 x 24 pixels" in prepared(tmp_path).error["a"]
    assert prepared(tmp_path, dimension=2).status["a"] == "ok"
    assert "has 20 slice(s) of 1 x 24 pixels" in prepared(tmp_path, slice_axis="coronal").error["a"]


def test_a_data_set_is_cut_in_one_plane(tmp_path):
    for name in ("a", "b", "c"):
        write(tmp_path, name)
    table = prepared(tmp_path)
    assert table.plane.tolist() == ["axial"] * 3
    write(tmp_path, "odd", np.diag([4, 1, 1, 1.0]))
    table = prepared(tmp_path)
    assert table.status.to_dict() == {"a": "ok", "b": "ok", "c": "ok", "odd": "failed"}
    message = table.error["odd"]
    assert "slices would be sagittal" in message and "its cases are 3 axial, 1 sagittal" in message
    assert "Write `slice_axis: axial` (or coronal, or sagittal) in the row own" in message
    assert prepared_cases(tmp_path / "prepared", "own").case_id.tolist() == ["a", "b", "c"]
    assert not (tmp_path / "prepared" / "own" / "odd").exists()
    table = prepared(tmp_path, slice_axis="axial")
    assert table.status.tolist() == ["ok"] * 4 and table.plane.tolist() == ["axial"] * 4
    for name in ("a", "b"):
        write(tmp_path, name, np.diag([4, 1, 1, 1.0]))
    for name in ("d", "e"):
        write(tmp_path, name, np.diag([1, 4, 1, 1.0]))
    assert (prepared(tmp_path).status == "failed").all()  # no plane is that of most


@pytest.mark.parametrize(
    ("affine", "words"),
    [
        (np.diag([1e30, 1, 1, 1.0]), "beyond any body"),
        (np.diag([2000.0, 2000, 2000, 1]), "beyond any body"),
        (np.diag([1e-9, 1e-9, 1e-9, 1]), "beyond any body"),
        (np.array([[1, 0, 0, 1e30], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "beyond any body"),
        (np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "in one plane"),
        (np.diag([1, np.nan, 1, 1]), "in one plane"),
    ],
)
def test_places_that_no_body_has(tmp_path, affine, words):
    image = nib.Nifti1Image(arrays()[0].T, None)
    image.header["sform_code"], image.header["pixdim"][1:4] = 1, 1
    for name, line in zip(("srow_x", "srow_y", "srow_z"), affine, strict=False):
        image.header[name] = line
    (tmp_path / "a.nii").write_bytes(image.header.binaryblock + bytes(4) + arrays()[0].tobytes())
    with pytest.raises(InputError, match=words):
        read_volume(tmp_path / "a.nii")


def test_the_smallest_voxels_are_no_plane(tmp_path):
    write(tmp_path, affine=np.diag([2e-4, 2e-4, 5e-4, 1]), unit="mm")
    table = prepared(tmp_path)
    assert table.error["a"] == "" and table.spacing_mm["a"] == "0.0005 x 0.0002 x 0.0002"


def test_values_that_no_scanner_stores(tmp_path):
    for value in (1e35, -1e35):
        image = arrays()[0].astype(np.float64)
        image[0, 0, 0] = value
        nib.save(nib.Nifti1Image(image.T, np.eye(4)), tmp_path / "a.nii")
        with pytest.raises(InputError, match=r"its values reach 1e\+35: beyond any scanner's"):
            read_volume(tmp_path / "a.nii")


HUGE = 30_000


def huge_nifti(path):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((HUGE, HUGE, HUGE))
    header["sform_code"], header["srow_x"], header["srow_y"], header["srow_z"] = 1, *np.eye(4)[:3]
    path.write_bytes(header.binaryblock + bytes(10_000))


def huge_itk(path):
    sitk.WriteImage(sitk.GetImageFromArray(arrays()[0]), str(path), useCompression=False)
    data = path.read_bytes()
    for old, new in ((b"sizes: 24 20 6", b"sizes: %d %d %d"), (b"DimSize = 24 20 6", b"DimSize = %d %d %d")):
        data = data.replace(old, new % (HUGE, HUGE, HUGE))
    path.write_bytes(data)


@pytest.mark.parametrize(("suffix", "make"), [(".nii", huge_nifti), (".nrrd", huge_itk), (".mha", huge_itk)])
def test_a_header_larger_than_the_memory_is_refused_before_it_is_believed(tmp_path, suffix, make):
    make(tmp_path / f"a{suffix}")
    with pytest.raises(InputError) as caught:
        read_volume(tmp_path / f"a{suffix}")
    assert "its header announces 30000 x 30000 x 30000" in str(caught.value)
    assert f"this machine has {reading.memory_bytes() / 2**30:,.0f} GiB" in str(caught.value)


def test_a_header_that_states_no_place_is_said(tmp_path):
    image = nib.Nifti1Image(arrays()[0].T, None)
    nib.save(image, tmp_path / "a.nii")
    assert "left, right and order of slices are a guess" in read_volume(tmp_path / "a.nii").remarks[0]


def test_frame_is_for_masks_too(tmp_path):
    image, labels = arrays()
    (tmp_path / "raw" / "own" / "images").mkdir(parents=True)
    (tmp_path / "raw" / "own" / "labels").mkdir()

    def save(folder, *volumes):
        stacked = np.stack([volume.T for volume in volumes], axis=3)
        nib.save(
            nib.Nifti1Image(stacked, np.diag([1, 1, 3, 1.0])), tmp_path / "raw/own" / folder / "a.nii.gz"
        )

    layout = {"name": "nifti_pairs", "frame": 1}
    save("images", image, image + 1)
    for masks in ((labels,), (labels * 0, labels)):
        save("labels", *masks)
        table = prepared(tmp_path, layout=layout)
        assert table.error["a"] == ""
        case = load_case(case_folders(tmp_path / "prepared", "own")[0])
        assert case.mask("organ").sum() == labels.sum()
    save("labels", labels, labels, labels)
    assert "the mask holds 3 volumes, the image 2" in prepared(tmp_path, layout=layout).error["a"]
    save("images", image)
    save("labels", labels)
    assert "has 1 volumes, not 2" in prepared(tmp_path, layout=layout).error["a"]
