"""What decides a result is in its key, and nothing else: every module is changed in turn, in a copy.

Hashed are folders (`provenance.ROWS` and its like). The real hash, the real planning, preparing and encoding
look at the copy instead of the installed package.
"""

import ast
import json
import shutil
import sys
from dataclasses import asdict, fields, replace
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import nibabel as nib
import numpy as np
import pytest
import torch
from helpers.networks import small_sam, textured_slices

from medsam_nb import provenance
from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders
from medsam_nb.evaluation.units import plan_units
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.manifest.rows import DataSet
from medsam_nb.models import checkpoints
from medsam_nb.models.features import ENCODING_PACKAGES, SliceFeatures
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.options import CHOICES, MemoryWindow, PropagationOptions
from medsam_nb.protocol.table import RunKey

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "rows": provenance.ROWS,
    "prepared cases": provenance.PREPARED_CASES,
    "encoded slices": provenance.ENCODED_SLICES,
}
SUBPACKAGES = sorted(path.name for path in provenance.PACKAGE.iterdir() if (path / "__init__.py").exists())
DECIDES = {  # what a subpackage decides; the others decide nothing
    "protocol": {"rows", "prepared cases"},
    "data": {"prepared cases"},
    "models": {"rows", "encoded slices"},
    "evaluation": {"rows"},
}
DESIGN = Design("centre_slice", "one_box", "bidirectional", "first_mask")


@pytest.fixture
def copy(tmp_path):
    """A copy of the package, and of nothing else."""
    shutil.copytree(provenance.PACKAGE, tmp_path / "medsam_nb", ignore=shutil.ignore_patterns("weights"))
    yield tmp_path / "medsam_nb"
    provenance.code_sha256.cache_clear()


def hashes(package: Path) -> dict[str, str]:
    provenance.code_sha256.cache_clear()
    return {kind: provenance.code_sha256(*folders, package=package) for kind, folders in FOLDERS.items()}


def changed(before: dict, after: dict) -> set[str]:
    return {kind for kind in before if before[kind] != after[kind]}


def with_another_constant(source: str) -> str:
    """Return a module in which one number or word is another; one that has none gets one."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Assign | ast.AnnAssign | ast.Return | ast.Compare | ast.BinOp):
            continue
        for part in ast.walk(node):
            if (
                isinstance(part, ast.Constant)
                and type(part.value) in (int, float)
                and part.lineno == part.end_lineno
            ):
                lines = source.splitlines(keepends=True)
                line = lines[part.lineno - 1].encode()
                new = (
                    line[: part.col_offset] + repr(part.value * 2 + 1).encode() + line[part.end_col_offset :]
                )
                lines[part.lineno - 1] = new.decode()
                return "".join(lines)
    return source + "\nADDED = 1\n"


def modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def test_the_table_of_what_decides_what_is_that_of_the_hashed_folders():
    assert set(DECIDES) < set(SUBPACKAGES)
    for kind, folders in FOLDERS.items():
        assert {name for name in SUBPACKAGES if kind in DECIDES.get(name, ())} == set(folders)


@pytest.mark.parametrize("name", SUBPACKAGES)
def test_a_constant_of_a_module_changes_what_its_folder_decides_and_nothing_else(copy, name):
    before = hashes(copy)
    deciding = name in DECIDES
    for path in modules(copy / name):
        source = path.read_text(encoding="utf-8")
        other = with_another_constant(source)
        assert ast.dump(ast.parse(other)) != ast.dump(ast.parse(source))
        path.write_text(other, encoding="utf-8")
        if deciding:  # each module on its own
            assert changed(before, hashes(copy)) == DECIDES[name], path
            path.write_text(source, encoding="utf-8")
    assert hashes(copy) == before  # all modules of a folder that decides nothing are changed by now


def test_modules_outside_the_folders_change_nothing(copy):
    before = hashes(copy)
    for path in copy.glob("*.py"):
        path.write_text(with_another_constant(path.read_text(encoding="utf-8")), encoding="utf-8")
    assert hashes(copy) == before


def test_prose_and_layout_of_the_code_change_nothing(copy):
    before = hashes(copy)
    for path in modules(copy):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
                node.body[0].value.value = "Something else is said here."
        text = ast.unparse(tree).replace("\n\n", "\n\n\n")  # no comment, other breaks and quotes
        path.write_text(f"# a comment\n{text}\n# another\n", encoding="utf-8")
    assert hashes(copy) == before


def test_a_renamed_moved_or_added_module_is_a_change(copy):
    before = hashes(copy)
    (copy / "models" / "sharing.py").rename(copy / "models" / "sharing_of_parts.py")
    assert changed(before, hashes(copy)) == {"rows", "encoded slices"}
    (copy / "models" / "sharing_of_parts.py").rename(copy / "models" / "sharing.py")
    (copy / "data" / "layouts" / "new.py").write_text("x = 1\n", encoding="utf-8")
    assert changed(before, hashes(copy)) == {"prepared cases"}


# --- the same through planning, preparing and encoding ------------------------------------------------------


def own_row() -> DataSet:
    return DataSet.model_validate(
        {
            "name": "own",
            "title": "Own",
            "modality": "CT",
            "dimension": 3,
            "objects": {"organ": [1]},
            "intensity": {"policy": "window", "low": -100, "high": 100},
            "layout": {"name": "nifti_pairs"},
        }
    )


def write_case(raw: Path) -> None:
    image = np.random.default_rng(0).integers(-1000, 1000, (20, 18, 4)).astype(np.int16)
    labels = np.zeros(image.shape, np.uint8)
    labels[3:9, 4:10, 1:3] = 1
    for folder, array in (("images", image), ("labels", labels)):
        (raw / "own" / folder).mkdir(parents=True)
        nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 5.0, 1.0])), raw / "own" / folder / "p.nii.gz")


class Study:
    """A case that is prepared, planned and encoded with the real functions, on the code of a copy."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.row = load_manifest(ROOT / "data_manifest.yaml").checkpoint("miniature_sam2")
        write_case(place / "raw")

    def keys(self) -> dict[str, str]:
        """Return what identifies a result of each kind: for prepared cases and slices, files made anew."""
        provenance.code_sha256.cache_clear()
        prepare(own_row(), self.place / "raw", self.place / "prepared", progress=False)
        (case,) = case_folders(self.place / "prepared", "own")
        (unit,) = plan_units(
            "2d", [case], [self.row], weights_dir=ROOT, seed=1, device="cpu", modes=["one_box"]
        )
        features = SliceFeatures(small_sam(), textured_slices(1, 20, 24, 0), folder=self.place / "encoded")
        features[0]
        encoded = sorted(path.name for path in (self.place / "encoded").rglob("*.features"))
        assert features.encoded in (0, 1)
        record = (case / "case.json").stat()
        return {
            "rows": unit.key.digest,
            "prepared cases": f"{record.st_ino} {record.st_mtime_ns}",
            "encoded slices": " ".join(encoded),
        }


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("protocol/metrics.py", {"rows", "prepared cases"}),
        ("data/simulated/shapes.py", {"prepared cases"}),
        ("models/features.py", {"rows", "encoded slices"}),
        ("evaluation/units.py", {"rows"}),
        ("statistics/paired.py", set()),
        ("figures/slices.py", set()),
        ("workbook/kernels.py", set()),
        ("manifest/layouts.py", set()),
        ("finetuning/losses.py", set()),
        ("cli.py", set()),
    ],
)
def test_exactly_what_depends_on_a_module_is_made_again(copy, tmp_path, monkeypatch, module, expected):
    monkeypatch.setattr(provenance, "PACKAGE", copy)
    study = Study(tmp_path)
    before = study.keys()
    assert study.keys() == before
    path = copy / module
    path.write_text(with_another_constant(path.read_text(encoding="utf-8")), encoding="utf-8")
    assert changed(before, study.keys()) == expected


# --- the key of rows ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A function that plans one unit of a prepared case."""
    place = tmp_path_factory.mktemp("planned")
    write_case(place / "raw")
    prepare(own_row(), place / "raw", place / "prepared", progress=False)
    (case,) = case_folders(place / "prepared", "own")
    row = load_manifest(ROOT / "data_manifest.yaml").checkpoint("miniature_sam2")

    def plan(checkpoint=row, task="2d", seed=1, dtype="auto", device="cpu", **parameters) -> RunKey:
        (unit,) = plan_units(
            task, [case], [checkpoint], weights_dir=ROOT, seed=seed, dtype=dtype, device=device, **parameters
        )
        return unit.key

    return plan


def test_every_field_of_the_key_reaches_the_digest(planned):
    key = planned()
    others = {
        field.name: replace(key, **{field.name: f"{getattr(key, field.name)}x"}) for field in fields(RunKey)
    }
    digests = {name: other.digest for name, other in others.items()}
    assert digests.pop("patient_id") == key.digest  # whose images they are determines no value
    assert len({key.digest, *digests.values()}) == len(fields(RunKey))
    assert replace(key).digest == key.digest and all(value != "" for value in asdict(key).values())


def test_what_a_user_can_choose_is_in_the_key(planned):
    row = load_manifest(ROOT / "data_manifest.yaml").checkpoint("miniature_sam2")
    keys = [
        planned(modes=["one_box"]),
        planned(modes=["one_point"]),
        planned(modes=["one_box"], protocol="released"),
        planned(modes=["one_box"], objects=["organ"]),
        planned(modes=["one_box"], seed=2),
        planned(modes=["one_box"], dtype="bfloat16"),
        planned(row.model_copy(update={"name": "renamed"}), modes=["one_box"]),
    ]
    assert len({key.digest for key in keys}) == len(keys)
    assert json.loads(keys[0].network) == {"family": "sam2", "config": "miniature", "image_size": 256}
    noted = row.model_copy(update={"note": "another", "citation": "another", "licence": "another"})
    assert planned(noted, modes=["one_box"]) == keys[0]


def test_every_option_of_propagation_is_in_the_key(planned):
    def key(options=PropagationOptions(), designs=(DESIGN,), **parameters):  # noqa: B008
        return planned(task="3d", designs=designs, options=options, **parameters).digest

    others = [PropagationOptions(**{name: value}) for name, values in CHOICES.items() for value in values]
    windows = [MemoryWindow(memories=1), MemoryWindow(stride=2), MemoryWindow(pointers=1)]
    windows += [MemoryWindow(beyond="interpolated"), MemoryWindow(remembered="truth")]
    windows.append(MemoryWindow(remembered="nothing"))
    others += [PropagationOptions(window=window) for window in windows]
    others.append(PropagationOptions(branches_at_once=4))
    different = {json.dumps(options.as_dict(), sort_keys=True): options for options in others}
    assert {field.name for field in fields(PropagationOptions)} == {*CHOICES, "window", "branches_at_once"}
    assert len({key(options) for options in others}) == len(different)
    assert len({key(), key(designs=(replace(DESIGN, prompt="one_point"),)), key(volume_metrics="all")}) == 3


def test_the_versions_of_all_computing_packages_are_in_the_key(planned, monkeypatch):
    key = planned()
    assert json.loads(key.packages) == provenance.package_versions(provenance.COMPUTING_PACKAGES)
    wanted = "torch torchvision sam2 segment-anything opencv-python-headless scikit-image pymeshmetrics numpy"
    assert set(wanted.split()) <= set(json.loads(key.packages))
    assert "absent" not in json.loads(key.packages).values()
    real = provenance.version
    for name in provenance.COMPUTING_PACKAGES:
        monkeypatch.setattr(
            provenance, "version", lambda asked, name=name: real(asked) + "x" * (asked == name)
        )
        assert planned().digest != key.digest, name


def test_a_cpu_has_no_facts_but_its_kind(planned):
    assert planned().device_facts == "{}" and planned().device == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of the kind CUDA")
def test_what_decides_how_a_gpu_rounds_is_in_the_key(planned, monkeypatch):
    key = planned(device="cuda")
    facts = json.loads(key.device_facts)
    assert facts["name"] == torch.cuda.get_device_name() and facts["cudnn"] == torch.backends.cudnn.version()
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", not torch.backends.cuda.matmul.allow_tf32)
    assert planned(device="cuda").digest != key.digest


def test_the_facts_of_a_device_reach_the_key(planned, monkeypatch):
    key = planned()
    planning = sys.modules[plan_units.__module__]
    assert planning.device_facts is checkpoints.device_facts
    monkeypatch.setattr(planning, "device_facts", lambda device: {"name": "another GPU"})
    assert planned().digest != key.digest


# --- the contract: what computes lies in the hashed folders -------------------------------------------------

# What may stay outside the hash, and why it cannot change a value unseen.
NO_VALUES = {
    "errors": "words for people",
    "files": "where bytes go, not which",
    "data.workers": "who computes, not what",
    "data.cluster": "where it is computed, not what",
    "provenance": "it makes the keys; what it says of code and versions is what the key holds",
    "manifest": "rows as they are written; those of their fields that decide stand in the keys themselves",
}
OUTSIDE = {
    "medsam_nb.evaluation.rows": NO_VALUES,
    "medsam_nb.data.prepare": NO_VALUES
    | {"figures": "the mosaic beside a case, which is for eyes only and read by no program"},
    "medsam_nb.models.features": NO_VALUES
    | {
        "protocol.options": "the names of the ways to resize; the way itself is in models and in the key",
        "protocol.intensity": "how a row of the manifest spells grey values; the pixels are in the key",
    },
}
HASHED = {
    "medsam_nb.evaluation.rows": provenance.ROWS,
    "medsam_nb.data.prepare": provenance.PREPARED_CASES,
    "medsam_nb.models.features": provenance.ENCODED_SLICES,
}


@pytest.mark.parametrize("module", OUTSIDE)
def test_what_computes_lies_in_the_hashed_folders(module):
    graph = grimp.build_graph("medsam_nb")
    needed = {name.removeprefix("medsam_nb.") for name in graph.find_upstream_modules(module)}
    outside = {name for name in needed if name.split(".")[0] not in HASHED[module]}
    known = {name for name in outside if any(f"{name}.".startswith(f"{free}.") for free in OUTSIDE[module])}
    assert outside == known, f"hash the folder, or say why a change of it changes no value: {outside - known}"
    assert len(needed) > len(outside) > 0


# Packages that the computing modules import, and whose version is not in the key of what they compute.
TEXT = {"pydantic": "rows of the manifest", "pyyaml": "text that people write", "pandas": "tables for people"}
NO_VERSIONS = {
    "medsam_nb.evaluation.rows": TEXT | {"nibabel": "axes of a grid: the case that comes out is in the key"},
    "medsam_nb.data.prepare": {
        **TEXT,
        **dict.fromkeys(("pooch", "requests", "tqdm", "urllib3"), "downloads and progress"),
        "matplotlib": "the mosaic",
        "scikit-image": "components for prompts, a module of which the drawing of the mosaic imports",
    },
    "medsam_nb.models.features": TEXT,
}
VERSIONS = {
    "medsam_nb.evaluation.rows": provenance.COMPUTING_PACKAGES,
    "medsam_nb.data.prepare": provenance.READING_PACKAGES,
    "medsam_nb.models.features": ENCODING_PACKAGES,
}


@pytest.mark.parametrize("module", VERSIONS)
def test_the_versions_of_all_packages_that_compute_are_in_the_key(module):
    graph = grimp.build_graph("medsam_nb", include_external_packages=True)
    imported = {name.split(".")[0] for name in graph.find_upstream_modules(module)}
    packages = packages_distributions()
    needed = {packages[name][0] for name in imported - sys.stdlib_module_names if name in packages}
    needed -= {"medsam-nb"}
    missing = {name.lower() for name in needed} - {name.lower() for name in VERSIONS[module]}
    assert missing <= set(NO_VERSIONS[module]) and "numpy" in needed


def test_running_a_unit_reads_nothing_that_the_key_does_not_hold():
    """It reads the prepared case, which is outside the hash but checked against the key's own hash of it.

    Label maps from elsewhere are read too; their scores are kept in no store.
    """
    graph = grimp.build_graph("medsam_nb")
    direct = {
        used.removeprefix("medsam_nb.")
        for name in graph.find_descendants("medsam_nb.evaluation")
        for used in graph.find_modules_directly_imported_by(name)
    }
    outside = {name for name in direct if name.split(".")[0] not in provenance.ROWS}
    free = {name for name in outside if NO_VALUES.keys() & {name, name.split(".")[0]}}
    assert outside - free == {"data.prepared", "data.formats"}


def test_only_pictures_use_figures_when_cases_are_prepared():
    graph = grimp.build_graph("medsam_nb")
    users = {name for name in graph.modules if name.startswith("medsam_nb.data")}
    users = {
        name for name in users
        if any(used.startswith("medsam_nb.figures") for used in graph.find_modules_directly_imported_by(name))
    }  # fmt: skip
    assert users == {"medsam_nb.data.mosaics"}
