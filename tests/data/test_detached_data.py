"""Headers whose voxels lie in another file: that file is a part of the case, and of its hash."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medsam_nb.data.formats import read_volume, with_data
from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders, load_case
from medsam_nb.errors import InputError
from medsam_nb.manifest.rows import DataSet

SHAPE = (6, 20, 22)  # z, y, x


def arrays():
    image = np.random.default_rng(0).integers(-900, 900, SHAPE).astype(np.int16)
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 3:9, 4:10] = 1
    return image, labels


def write_itk(path, array):
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path), useCompression=False)


def write_pair(path, array):
    nib.save(nib.Nifti1Pair(array.T, np.diag([1.0, 1.0, 3.0, 1.0])), path)


def write_analyze(path, array):
    nib.save(nib.Spm99AnalyzeImage(array.T.astype(np.int16), np.diag([1.0, 1.0, 3.0, 1.0])), path)


def write_slices(path, array, named):
    """Write a MetaImage with a file for each slice; `named` makes the header's entry from their names."""
    write_itk(path, array)
    header = path.read_text(encoding="ascii")
    names = [f"{path.stem}_{z}.raw" for z in range(len(array))]
    for name, plane in zip(names, array, strict=True):
        (path.parent / name).write_bytes(plane.tobytes())
    path.with_suffix(".raw").unlink()
    entry = f"ElementDataFile = {path.stem}.raw"
    assert entry in header
    path.write_text(header.replace(entry, f"ElementDataFile = {named(names)}") + "\n", encoding="ascii")


def write_list(path, array):
    write_slices(path, array, lambda names: "\n".join(["LIST", *names]))


def write_pattern(path, array):
    write_slices(path, array, lambda names: f"{path.stem}_%d.raw 0 {len(names) - 1} 1")


READ = {
    ".mhd": (".mhd", write_itk), ".nhdr": (".nhdr", write_itk), ".mhd with a list": (".mhd", write_list),
    ".mhd with a pattern": (".mhd", write_pattern),
}  # fmt: skip
ALL = READ | {"NIfTI pair": (".hdr", write_pair), "Analyze": (".hdr", write_analyze)}


def row(suffix):
    layout = {
        "name": "nifti_pairs",
        "images": f"images/{{case}}{suffix}",
        "masks": f"labels/{{case}}{suffix}",
    }
    return DataSet.model_validate(
        {
            "name": "own", "title": "Own", "modality": "CT", "dimension": 3, "objects": {"organ": [1]},
            "intensity": {"policy": "window", "low": -100, "high": 100}, "layout": layout,
        }
    )  # fmt: skip


@pytest.mark.parametrize("kind", READ)
def test_a_mask_that_is_redrawn_in_its_data_file_only_is_prepared_again(tmp_path, kind):
    suffix, write = READ[kind]
    image, labels = arrays()
    for folder, array in (("images", image), ("labels", labels)):
        (tmp_path / "raw" / "own" / folder).mkdir(parents=True)
        write(tmp_path / "raw" / "own" / folder / f"p{suffix}", array)
    header = tmp_path / "raw" / "own" / "labels" / f"p{suffix}"
    before = header.read_bytes()

    def prepared():
        table = prepare(row(suffix), tmp_path / "raw", tmp_path / "prepared", progress=False)
        assert list(table.status) == ["ok"], table.error[0]
        (folder,) = case_folders(tmp_path / "prepared", "own")
        return (
            table.files_sha256[0],
            int((load_case(folder).labels > 0).sum()),
            (folder / "case.json").stat().st_ino,
        )

    first = prepared()
    assert first[1] == int(labels.sum()) and prepared() == first  # nothing has changed, nothing is done
    redrawn = np.zeros_like(labels)
    redrawn[2:5, 2:18, 2:20] = 1
    write(header, redrawn)
    header.write_bytes(before)  # the header is what it was
    again = prepared()
    assert again[1] == int(redrawn.sum()) and again[0] != first[0]


@pytest.mark.parametrize("kind", ALL)
def test_the_files_of_a_volume_are_its_header_and_its_data(tmp_path, kind):
    suffix, write = ALL[kind]
    image, _ = arrays()
    path = tmp_path / f"p{suffix}"
    write(path, image)
    found = with_data(path)
    # Analyze of SPM has a third file, with the affine
    assert (
        sorted(found) == sorted(file for file in tmp_path.iterdir() if file.suffix != ".mat")
        and len(found) > 1
    )
    if kind in READ:
        assert np.array_equal(read_volume(path).array, image)
    else:
        with pytest.raises(InputError, match="'.hdr' is not known"):
            read_volume(path)


def test_a_file_that_holds_its_voxels_stands_alone(tmp_path):
    image, _ = arrays()
    for suffix in (".mha", ".nrrd", ".nii.gz"):
        write_itk(tmp_path / f"p{suffix}", image)
        assert with_data(tmp_path / f"p{suffix}") == [tmp_path / f"p{suffix}"]
    (tmp_path / "broken.mhd").write_bytes(b"\xff\x00ElementDataFile")
    assert with_data(tmp_path / "broken.mhd") == [tmp_path / "broken.mhd"]
