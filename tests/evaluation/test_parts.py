"""Parts of a long unit: a killed run goes on within it, damage is noticed, and dividing it changes no bit."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders
from medsam_nb.errors import StudyError
from medsam_nb.evaluation import parts, units
from medsam_nb.evaluation.masks import MaskStore
from medsam_nb.evaluation.store import Store
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.manifest.rows import DataSet
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.options import PropagationOptions
from medsam_nb.protocol.volume_changes import VolumeChange

ROOT = Path(__file__).parents[2]
DESIGNS = [
    Design("centre_slice", "one_box", "bidirectional", "first_mask"),
    Design("centre_slice", "one_point", "front_to_end", "most_confident_mask"),
    Design("first_slice", "one_box", "bidirectional", "first_mask"),
]
SOURCE = {
    "name": "own",
    "title": "Own",
    "modality": "CT",
    "dimension": 3,
    "objects": {"organ": [1], "lesion": [2]},
    "intensity": {"policy": "window", "low": -100, "high": 100},
    "layout": {"name": "nifti_pairs"},
}
TASKS = {  # its parameters, and into how many parts it is divided below
    "2d": ({"prompts": ["one_point", "one_box"]}, 3),
    "3d": ({"designs": DESIGNS, "options": PropagationOptions(), "volume_metrics": "overlap"}, 4),
    "3d_changed": ({"designs": DESIGNS, "change": VolumeChange(), "options": PropagationOptions()}, 4),
    "2d_clicks": ({"initial_prompts": ["one_box"], "clicks": 2}, 3),
    "3d_loops": ({"initial_prompts": ["one_box", "one_point"], "loops": 1}, 4),
}


def prepared(place):
    """Prepare a case of 7 slices: an organ on six of them, a lesion on two."""
    draw, (rows, columns) = np.random.default_rng(3), np.ogrid[:40, :36]
    labels = np.zeros((40, 36, 7), np.uint8)
    for index in range(1, 7):
        labels[(rows - 20) ** 2 + (columns - 16) ** 2 < (4 + index) ** 2, index] = 1
    labels[18:22, 14:18, 3:5] = 2
    image = (draw.normal(0, 25, labels.shape) + 60 * labels - 40).astype(np.int16)
    for folder, array in (("images", image), ("labels", labels)):
        (place / "raw" / "own" / folder).mkdir(parents=True)
        nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 5.0, 1.0])), place / f"raw/own/{folder}/p.nii.gz")
    prepare(DataSet.model_validate(SOURCE), place / "raw", place / "prepared", progress=False)
    return case_folders(place / "prepared", "own")


def planned(folders, task, **further):
    row = load_manifest(ROOT / "data_manifest.yaml").checkpoint("miniature_sam2")
    given = {"weights_dir": ROOT / "weights", "seed": 1, "device": "cpu"} | TASKS[task][0] | further
    return units.plan_units(task, folders, [row], **given)[0]


def divided():
    """Divide units as if they were long."""
    parts.SLICES_OF_A_PART, parts.STEPS_OF_A_PART = 2, 7


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("data"))


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "SLICES_OF_A_PART", 2)
    monkeypatch.setattr(parts, "STEPS_OF_A_PART", 7)


@pytest.fixture(scope="module")
def whole(folders, tmp_path_factory):
    """The tables of the units, undivided."""
    store, tables = Store(tmp_path_factory.mktemp("whole")), {}
    for task in TASKS:
        unit = planned(folders, task)
        assert list(units.run_units([unit], store, workers=0)["error"]) == [""]
        assert "parts_found" not in store.records([unit.key])[0]["provenance"]
        tables[task] = store.read([unit.key])
    assert list(store.folder.rglob("*.part")) == []
    return tables


def part_files(store, unit):
    return sorted((store.folder / parts.PARTS / unit.key.digest).glob("*.part"))


def killed_after(folder: str, case: str) -> None:
    """Be, for every task, a process that the system kills before the last part of its unit is written."""
    divided()
    write = parts._write
    for task, (_, total) in TASKS.items():
        child = os.fork()
        if child:
            assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
            continue
        written = []

        def last_write(*arguments, written=written, total=total):
            write(*arguments)
            written.append(arguments)
            if len(written) == total - 1:
                os.kill(os.getpid(), signal.SIGKILL)

        parts._write = last_write
        units.run_units([planned([Path(case)], task)], Store(Path(folder)), workers=0)


@pytest.fixture(scope="module")
def killed(folders, tmp_path_factory):
    """A store in which killed runs have left parts."""
    store = Store(tmp_path_factory.mktemp("killed"))
    command = [sys.executable, __file__, str(store.folder), str(folders[0])]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return store


def left(store, unit, place):
    """Return a store of its own with the parts that a killed run has left of a unit."""
    folder = Path(parts.PARTS) / unit.key.digest
    shutil.copytree(store.folder / folder, place / folder)
    return Store(place)


@pytest.mark.skipif(sys.platform == "win32", reason="processes fork")
@pytest.mark.parametrize("task", TASKS)
def test_a_killed_run_goes_on_within_the_unit_to_the_same_table(
    task, folders, whole, killed, tmp_path, small_parts
):
    unit, total = planned(folders, task), TASKS[task][1]
    store = left(killed, unit, tmp_path)
    assert len(part_files(store, unit)) == total - 1 and not store.has(unit.key)
    assert parts.share_done(tmp_path / parts.PARTS, unit.key.digest) == (total - 1) / total
    assert units.counts(units.run_units([unit], store, workers=0))["computed"] == 1
    provenance = store.records([unit.key])[0]["provenance"]
    assert provenance["parts_found"] == total - 1 and provenance["seconds"] > 0
    pd.testing.assert_frame_equal(store.read([unit.key]), whole[task], check_exact=True)
    assert part_files(store, unit) == []


def damage(what, files, other):
    data = bytearray(files[0].read_bytes())
    if what == "a bit":
        data[len(data) // 2] ^= 1
    elif what == "cut":
        del data[len(data) // 2 :]
    elif what == "empty":
        data = bytearray()
    elif what == "exchanged":
        data = bytearray(files[1].read_bytes())
    elif what == "of another unit":
        data = bytearray(other.read_bytes())
    files[0].write_bytes(data)


@pytest.mark.skipif(sys.platform == "win32", reason="processes fork")
@pytest.mark.parametrize("what", ["a bit", "cut", "empty", "exchanged", "of another unit"])
def test_a_damaged_part_is_noticed_and_computed_again(what, folders, whole, killed, tmp_path, small_parts):
    unit = planned(folders, "2d")
    store = left(killed, unit, tmp_path)
    files = part_files(store, unit)
    other = parts.Parts(tmp_path / "other", "another")
    other.rows([(f"slices {list(range(1, 3))}", list), ("x", list)])
    damage(what, files, next((tmp_path / "other").rglob("*.part")))
    with pytest.warns(UserWarning, match="00001_of_00003.part: cannot be used"):
        units.run_units([unit], store, workers=0)
    assert store.records([unit.key])[0]["provenance"]["parts_found"] == 1
    pd.testing.assert_frame_equal(store.read([unit.key]), whole["2d"], check_exact=True)


def test_a_part_that_cannot_be_written_stops_the_run(folders, tmp_path, small_parts):
    (tmp_path / parts.PARTS).touch()
    with pytest.raises(StudyError, match="results cannot be written.*start again"):
        units.run_units([planned(folders, "2d")], Store(tmp_path), workers=0)


def test_masks_of_all_parts_are_kept(folders, tmp_path, small_parts):
    unit = planned(folders, "3d", masks=(tmp_path / "masks", [DESIGNS[0].name, DESIGNS[2].name]))
    units.run_units([unit], Store(tmp_path / "rows"), workers=0)
    for name in ("organ", "lesion"):
        for design in (DESIGNS[0], DESIGNS[2]):
            mask = MaskStore(tmp_path / "masks").read(
                run_key=unit.key.digest, object=name, design=design.name
            )
            assert mask.shape == (7, 36, 40) and mask.any()


def test_what_is_finished_within_units_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "LOOK_EVERY_S", 0.01)
    shown, under_way = [], {"a", "b"}
    for name, count in (("a", 1), ("b", 3), ("c", 2)):
        (tmp_path / name).mkdir()
        for number in range(count):
            (tmp_path / name / f"{number:05d}_of_00004.part").touch()
    with parts.watched(tmp_path, under_way, shown.append):
        deadline = time.monotonic() + 20
        while not shown and time.monotonic() < deadline:
            time.sleep(0.01)
        under_way.discard("b")
        seen = len(shown)
        while len(shown) < seen + 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert shown[0] == 1.0 and shown[-1] == 0.25


def test_what_is_propagated_together():
    groups = parts.propagated_together({"a": 300, "b": 200, "c": 900, "d": 100}, DESIGNS)
    assert groups == [(["c"], DESIGNS[:2]), (["c"], DESIGNS[2:]), (["a", "b", "d"], DESIGNS)]
    groups = parts.propagated_together({"a": 600, "b": 200}, DESIGNS)
    assert groups == [(["a"], DESIGNS), (["b"], DESIGNS)]
    assert parts.propagated_together({"a": 300, "b": 200}, DESIGNS) == [(["a", "b"], DESIGNS)]
    assert parts.propagated_together({}, DESIGNS) == []


if __name__ == "__main__":
    killed_after(*sys.argv[1:])
