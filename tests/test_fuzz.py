"""A seeded search at every border: whatever comes is taken as what it is, or refused in a sentence.

The examples are drawn from a fixed seed, so that a failure is the same everywhere.
`make soak` goes on for longer.
"""

import copy
import csv
import io
import json
import re
import shutil
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.keys import run_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from medsam_nb.data import formats
from medsam_nb.data.fetch import unpack
from medsam_nb.errors import InputError, ManifestError, StudyError, WorkbookError
from medsam_nb.evaluation import units
from medsam_nb.evaluation.store import Store
from medsam_nb.figures.words import as_csv
from medsam_nb.files import parse_yaml, read_json
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.manifest.rows import Manifest
from medsam_nb.workbook import printed
from medsam_nb.workbook.study import Study, load_study

ROOT = Path(__file__).parents[1]
FUZZ = settings(
    derandomize=True, deadline=None, database=None, max_examples=80, suppress_health_check=list(HealthCheck)
)
SHORT = settings(FUZZ, max_examples=40)

texts = st.one_of(
    st.text(max_size=12), st.sampled_from(["", " ", "../x", "=1", "\x1b[2J", "a" * 500, "{{x}}", "$x"])
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 1 << 31, 1 << 63, 10**40]),
    st.floats(),
    texts,
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=5,
)


@st.composite
def changed(draw, original):
    """A copy of nested mappings and lists with up to three places replaced, removed, added or doubled."""
    tree = copy.deepcopy(original)
    for _ in range(draw(st.integers(1, 3))):
        node = tree
        while True:
            places = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not places:
                break
            place = draw(st.sampled_from(places))
            if isinstance(node[place], dict | list) and draw(st.integers(0, 3)):
                node = node[place]
                continue
            what = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
            if what == "replace":
                node[place] = draw(values)
            elif what == "remove":
                del node[place]
            elif isinstance(node, dict):
                node[draw(texts)] = draw(values)
            else:
                node.append(draw(values))
            break
    return tree


@st.composite
def damaged(draw, data: bytes):
    """A copy of some bytes: cut, with bits turned, with pieces removed, repeated or inserted."""
    found = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(found) - 1, 0)))
        what = draw(st.sampled_from(["turn", "turn", "cut", "remove", "repeat", "insert", "zero"]))
        if what == "turn" and found:
            found[place] ^= 1 << draw(st.integers(0, 7))
        elif what == "cut":
            del found[place:]
        elif what == "remove":
            del found[place : place + draw(st.integers(1, 64))]
        elif what == "repeat":
            found[place:place] = found[place : place + draw(st.integers(1, 64))]
        elif what == "insert":
            found[place:place] = draw(st.binary(max_size=16))
        else:
            found[place : place + 16] = bytes(len(found[place : place + 16]))
    return bytes(found)


@pytest.fixture(scope="module")
def place():
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def in_words(error: WorkbookError) -> None:
    """An error is a few sentences, and steers no terminal."""
    assert len(str(error)) < 5000 and not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", str(error))


CHOSEN = {
    "data_sets": ("mni152", "simulated_xray", "mri_spine", "ct_spleen"),
    "checkpoints": ("sam2_hiera_large", "miniature_sam", "medsam"),
}
WHOLE = yaml.safe_load((ROOT / "data_manifest.yaml").read_text(encoding="utf-8"))
SMALL = {kind: {name: WHOLE[kind][name] for name in names} for kind, names in CHOSEN.items()}
STUDY = yaml.safe_load((ROOT / "studies" / "demo.yaml").read_text(encoding="utf-8"))
SMALL_TEXT, STUDY_TEXT = (yaml.safe_dump(one, sort_keys=False).encode() for one in (SMALL, STUDY))


@FUZZ
@given(changed(SMALL))
def test_manifests_with_other_values(place, content):
    path = place / "manifest.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    try:
        assert isinstance(load_manifest(path), Manifest)
    except ManifestError as error:
        in_words(error)
        assert "manifest.yaml" in str(error)


@FUZZ
@given(damaged(SMALL_TEXT))
def test_manifests_with_other_bytes(place, data):
    path = place / "manifest.yaml"
    path.write_bytes(data)
    try:
        assert isinstance(load_manifest(path), Manifest)
    except ManifestError as error:
        in_words(error)


@FUZZ
@given(st.one_of(changed(STUDY).map(lambda tree: yaml.safe_dump(tree).encode()), damaged(STUDY_TEXT)))
def test_studies(place, data):
    path = place / "study.yaml"
    path.write_bytes(data)
    try:
        assert isinstance(load_study(path), Study)
    except StudyError as error:
        in_words(error)


yaml_texts = st.text("abc0123.:-[]{},&*!?|>'\"#%@ \n\t~<=eEx_", max_size=60)


@settings(FUZZ, max_examples=300)
@given(yaml_texts)
def test_any_text_as_yaml(text):
    try:
        content, _ = parse_yaml(text, "text")
    except InputError as error:
        in_words(error)
    else:
        text = json.dumps(content)  # nothing but plain values
        assert json.dumps(json.loads(text)) == text


@FUZZ
@given(st.one_of(values.map(lambda value: json.dumps(value).encode()), st.binary(max_size=60)))
def test_any_bytes_as_json(place, data):
    path = place / "any.json"
    path.write_bytes(data)
    try:
        content = read_json(path)
    except InputError as error:
        in_words(error)
    else:
        assert content == json.loads(data)


CASE = {
    "data_set": "set", "case_id": "case", "modality": "CT", "objects": {"organ": [1]},
    "data_sha256": "d" * 64, "intensity": {"policy": "min_max", "low": 0.5, "high": 99.5},
}  # fmt: skip


@SHORT
@given(changed(CASE), st.data())
def test_records_of_cases(place, content, data):
    folder = place / "case"
    folder.mkdir(exist_ok=True)
    text = json.dumps(content).encode()
    (folder / "case.json").write_bytes(data.draw(damaged(text)) if data.draw(st.booleans()) else text)
    model = load_manifest(ROOT / "data_manifest.yaml").checkpoint("miniature_sam2")
    try:
        (unit,) = units.plan_units(
            "2d", [folder], [model], weights_dir=place, seed=1, device="cpu", prompts=["one_point"]
        )
        assert unit.key.data_set and unit.key.digest
    except InputError as error:
        in_words(error)


KEY = run_key()
ROWS = [{"task": "2d", "data_set": "set", "slice_index": index, "value": index / 9} for index in range(9)]


@settings(FUZZ, max_examples=150)
@given(st.data())
def test_stored_rows_are_the_truth_or_nothing(data):
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.write(KEY, ROWS, {"seconds": 1.0})
        whole = store.read([KEY])
        path = store.folder / f"{KEY.digest}{data.draw(st.sampled_from(['.parquet', '.json']))}"
        path.write_bytes(data.draw(damaged(path.read_bytes())))
        found = store.damage(KEY)
        if found is not None:
            in_words(found)
            with pytest.raises(InputError):
                store.read([KEY])
        else:
            pd.testing.assert_frame_equal(store.read([KEY]), whole)


def made_images():
    """A small file of each kind, as bytes by its ending."""
    array, made = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7), {}
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".nii", ".nii.gz", ".nrrd", ".mha", ".png", ".tif"):
            path = Path(folder) / f"image{suffix}"
            if suffix.startswith(".nii"):
                nib.save(nib.Nifti1Image(array, np.eye(4)), path)
            elif suffix in (".png", ".tif"):
                Image.fromarray(array[0].astype(np.uint8)).save(path)
            else:
                import SimpleITK as sitk

                sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
            made[suffix] = path.read_bytes()
    return made


IMAGES = made_images()


@pytest.mark.parametrize("suffix", IMAGES)
@SHORT
@given(st.data())
def test_images_with_other_bytes(place, suffix, data):
    path = place / f"image{suffix}"
    path.write_bytes(data.draw(damaged(IMAGES[suffix])))
    with warnings.catch_warnings(action="ignore"):
        try:
            volume = formats.read_volume(path)
            assert volume.array.ndim == 3
        except InputError as error:
            in_words(error)


DAMAGED_NAMES = [  # found by a longer search: zipfile speaks of them in ValueError and IndexError
    lambda data: data.replace(b"images/a.txt", b"\xe9mages/a.txt").replace(b"\x14\0\0\0", b"\x14\0\0\x08"),
    lambda data: data.replace(b"images/a.txt", b"\0mages/a.txt"),
    lambda data: data.replace(b"images/a.txt", b"/images/../"),
]


def made_archives():
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("images/a.txt", "labels/a.txt"):
            file.writestr(name, b"0123456789" * 20)
    with tarfile.open(fileobj=tarred, mode="w:gz") as file:
        for name in ("images/a.txt", "labels/a.txt"):
            member = tarfile.TarInfo(name)
            member.size = 200
            file.addfile(member, io.BytesIO(b"0123456789" * 20))
    return {".zip": zipped.getvalue(), ".tar.gz": tarred.getvalue()}


ARCHIVES = made_archives()


@pytest.mark.parametrize("change", DAMAGED_NAMES)
def test_archives_with_names_that_are_none(change, tmp_path):
    (tmp_path / "set.zip").write_bytes(change(ARCHIVES[".zip"]))
    with pytest.raises(InputError, match="set.zip: (is damaged|the member|is neither)"):
        unpack(tmp_path / "set.zip", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]


@pytest.mark.parametrize("suffix", ARCHIVES)
@FUZZ
@given(st.data())
def test_archives_with_other_bytes(suffix, data):
    with tempfile.TemporaryDirectory() as outside:
        folder = Path(outside) / "deep" / "set"
        folder.mkdir(parents=True)
        archive = folder / f"set{suffix}"
        archive.write_bytes(data.draw(damaged(ARCHIVES[suffix])))
        try:
            unpack(archive, folder)
        except InputError as error:
            in_words(error)
            assert [path for path in folder.rglob("*") if path.is_file()] == [archive]
        inside = {path for path in folder.rglob("*") if path.is_file()}
        assert {path for path in Path(outside).rglob("*") if path.is_file()} == inside


@FUZZ
@given(st.lists(texts, min_size=1, max_size=4))
def test_names_in_tables(names):
    table = pd.DataFrame({"name": names, "n": range(len(names))})
    read = list(csv.reader(io.StringIO(as_csv(table).decode(), newline="")))
    assert len(read) == len(names) + 1 and all(len(line) == 2 for line in read)
    assert not any(re.match(r"\s*[=@]|\s*\+\D", line[0]) for line in read)
    text = printed.latex(table, names[0], names[-1]).replace(r"\textbackslash{}", "")
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    without = re.sub(r"\\[{}]", "", text)
    assert without.count("{") == without.count("}")


def test_nothing_is_left_behind(place):
    shutil.rmtree(place / "case", ignore_errors=True)
    assert {path.name for path in place.iterdir()} <= {
        *("manifest.yaml", "study.yaml", "any.json"),
        *(f"image{suffix}" for suffix in IMAGES),
    }
