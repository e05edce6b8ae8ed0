"""Units of work: failures are counted, finished ones are kept, workers and order change nothing."""

import dataclasses
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders
from medsam_nb.errors import CheckpointError, InputError, StudyError
from medsam_nb.evaluation import units
from medsam_nb.evaluation.store import Store
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.models import features
from medsam_nb.models.checkpoints import EMBEDDED_WEIGHTS
from medsam_nb.models.state_dicts import read_weights

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def manifest():
    return load_manifest(ROOT / "data_manifest.yaml")


@pytest.fixture(scope="module")
def folders(manifest, tmp_path_factory):
    """The three simulated X-rays: one slice each, so that a unit takes a second."""
    place = tmp_path_factory.mktemp("prepared")
    prepare(manifest.data_set("simulated_xray"), place, place, progress=False)
    return case_folders(place, "simulated_xray")


def planned(manifest, folders, **changes):
    arguments = {
        "weights_dir": ROOT / "weights",
        "seed": 1,
        "device": "cpu",
        "prompts": ["one_point"],
    } | changes
    arguments.setdefault("protocol", "corrected")
    return units.plan_units("2d", folders, [manifest.checkpoint("miniature_sam2")], **arguments)


def test_order_and_workers_do_not_change_the_table(manifest, folders, tmp_path):
    chosen = planned(manifest, folders)
    tables = []
    for name, workers, order in (("a", 0, chosen), ("b", 2, chosen[::-1])):
        store = Store(tmp_path / name)
        outcome = units.run_units(order, store, workers=workers)
        assert set(outcome.status) == {"computed"}
        tables.append(store.read([unit.key for unit in chosen]))
    pd.testing.assert_frame_equal(*tables)


def test_an_interrupted_study_computes_only_what_is_missing(manifest, folders, tmp_path):
    chosen = planned(manifest, folders)
    store = Store(tmp_path)
    units.run_units(chosen[:1], store, workers=0)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    outcome = units.run_units(chosen, store, workers=0)
    assert list(outcome.status) == ["stored", "computed", "computed"]
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())


def test_a_bad_case_is_counted_and_the_others_run(manifest, folders, tmp_path):
    copies = []
    for folder in folders[:2]:
        copies.append(tmp_path / "prepared" / folder.name)
        copies[-1].mkdir(parents=True)
        for path in folder.iterdir():
            (copies[-1] / path.name).write_bytes(path.read_bytes())
    image = copies[0] / "image.nii.gz"
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    chosen = planned(manifest, copies)
    outcome = units.run_units(chosen, Store(tmp_path / "rows"), workers=0)
    assert list(outcome.status) == ["failed", "computed"]
    assert "image.nii.gz" in outcome.error[0]
    assert len(units.finished(chosen, Store(tmp_path / "rows"))) == 1


def test_what_decides_a_result_is_in_the_key(manifest, folders):
    base = planned(manifest, folders)[0].key
    others = [
        planned(manifest, folders, seed=2)[0].key,
        planned(manifest, folders, prompts=["one_box"])[0].key,
        planned(manifest, folders, protocol="released")[0].key,
        planned(manifest, folders, dtype="bfloat16")[0].key,
        planned(manifest, folders[1:])[0].key,
        planned(manifest, folders, prompt_source="jittered:0.1:0")[0].key,
        planned(manifest, folders, prompt_source="jittered:0.1:1")[0].key,
    ]
    assert len({key.digest for key in [base, *others]}) == 8
    assert planned(manifest, folders)[0].key == base


def test_slices_that_were_encoded_once_are_not_encoded_again(manifest, folders, tmp_path, monkeypatch):
    keeping = {"features": (tmp_path / "features", 0.1)}
    first = planned(manifest, folders[:1], **keeping)
    assert set(units.run_units(first, Store(tmp_path / "first"), workers=0).status) == {"computed"}
    others = planned(manifest, folders[:1], prompts=["one_box"], **keeping)
    plain = planned(manifest, folders[:1], prompts=["one_box"])
    assert [unit.key for unit in others] == [unit.key for unit in plain]
    stores = Store(tmp_path / "others"), Store(tmp_path / "plain")
    units.run_units(plain, stores[1], workers=0)
    encoder = features.encoder_of(
        units.loaded_model(others[0].checkpoint, ROOT / "weights", "cpu", "float32")
    )

    def refuse(image):
        raise AssertionError("encoded again")

    refusing = dataclasses.replace(encoder, encode=refuse)
    monkeypatch.setattr(features, "encoder_of", lambda model, frames: refusing)
    outcome = units.run_units(others, stores[0], workers=0)
    assert list(outcome.error) == [""]
    keys = [unit.key for unit in others]
    pd.testing.assert_frame_equal(stores[0].read(keys), stores[1].read(keys))


def test_missing_weights_stop_before_any_work(manifest, folders, tmp_path):
    with pytest.raises(CheckpointError, match="sam2_hiera_small"):
        units.plan_units(
            "2d", folders, [manifest.checkpoint("sam2_hiera_small")], weights_dir=tmp_path, seed=1
        )


def test_provenance_names_code_data_weights_and_packages(manifest, folders, tmp_path):
    chosen = planned(manifest, folders[:1])
    store = Store(tmp_path)
    units.run_units(chosen, store, workers=0)
    record = units.provenance(store, units.finished(chosen, store), {"seed": 1})
    assert record["checkpoints"] == {"miniature_sam2": manifest.checkpoint("miniature_sam2").sha256}
    assert len(record["code_sha256"][0]) == 64 and record["packages"]["sam2"] == "1.1.0"
    assert record["device"] == ["cpu"] and record["dtype"] == ["float32"]
    assert np.isfinite(record["seconds"])


class Deadly:
    """A parameter on whose arrival a worker process is killed by the system: always, or the first time."""

    def __init__(self, mark=None):
        self.mark = mark

    def __reduce__(self):
        code = "import os, signal\n"
        code += f"if {self.mark is None} or not os.path.exists({str(self.mark)!r}):\n"
        code += f"    open({str(self.mark or os.devnull)!r}, 'w').close()\n"
        code += "    os.kill(os.getpid(), signal.SIGKILL)\n"
        return eval, (f"exec({code!r}) or ['one_point']",)


def test_a_unit_that_kills_its_worker_costs_no_other_unit(manifest, folders, tmp_path):
    chosen, store = planned(manifest, folders), Store(tmp_path / "rows")
    given = dict(chosen[0].parameters)
    deadly, stumbling = (
        tuple((given | {"prompts": Deadly(mark)}).items()) for mark in (None, tmp_path / "died")
    )
    first = units.run_units([replace(chosen[1], parameters=stumbling)], store, workers=2)
    assert list(first.status) == ["computed"]
    assert (tmp_path / "died").exists()
    store.forget(chosen[1].key)
    outcome = units.run_units([replace(chosen[0], parameters=deadly), *chosen[1:]], store, workers=2)
    assert list(outcome.status) == ["failed", "computed", "computed"]
    assert "killed twice" in outcome.error[0] and "out of memory" in outcome.error[0]
    assert units.counts(outcome) == {"stored": 0, "computed": 2, "failed": 1}
    keys = units.finished(chosen, store)
    assert keys == [unit.key for unit in chosen[1:]]
    record = units.provenance(store, keys, {}, outcome)
    assert record["units"]["failed"] == 1
    assert [line["case_id"] for line in record["failed_units"]] == [chosen[0].key.case_id]
    plain = Store(tmp_path / "plain")
    units.run_units(chosen[1:], plain, workers=0)
    pd.testing.assert_frame_equal(store.read(keys), plain.read(keys))


@pytest.mark.parametrize("workers", [0, 1])
def test_the_first_failed_write_stops_the_run(workers, manifest, folders, tmp_path):
    chosen, store = planned(manifest, folders), Store(tmp_path / "rows")
    (tmp_path / "rows" / f"{chosen[0].key.digest}.json").mkdir(parents=True)
    with pytest.raises(StudyError, match="results cannot be written.*start again"):
        units.run_units(chosen, store, workers=workers)
    assert units.finished(chosen, store) == []
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="results cannot be written"):
        units.run_units(chosen, Store(tmp_path / "file"), workers=workers)


def copied(folder, place):
    return Path(shutil.copytree(folder, place / folder.name))


def test_a_case_that_changed_since_the_plan_is_not_computed(manifest, folders, tmp_path):
    place = copied(folders[0], tmp_path)
    chosen = planned(manifest, [place])
    for file in folders[1].iterdir():
        shutil.copy(file, place)
    record = json.loads((place / "case.json").read_text(encoding="utf-8"))
    (place / "case.json").write_text(json.dumps(record | {"case_id": place.name}), encoding="utf-8")
    outcome = units.run_units(chosen, Store(tmp_path / "rows"), workers=0)
    assert "has changed since the study was planned" in outcome.error[0]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"data_set": "a", "case_id": 3, "data_sha256": "b"}', "{"]
)
def test_a_damaged_record_of_a_case_is_named(content, manifest, folders, tmp_path):
    place = copied(folders[0], tmp_path)
    (place / "case.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="case.json"):
        planned(manifest, [place])


@pytest.fixture
def own_weights(manifest, tmp_path):
    """A row without a hash, and its file: the shipped weights."""
    row = manifest.checkpoint("miniature_sam2")
    changed = {"embedded": False, "sha256": None, "file": "own.pt", "url": "https://example.org/own.pt"}
    shutil.copy(EMBEDDED_WEIGHTS / row.file, tmp_path / "own.pt")
    return row.model_copy(update=changed)


def test_weights_that_change_in_a_living_session_are_never_mixed(manifest, folders, own_weights, tmp_path):
    def plan():
        return units.plan_units(
            "2d",
            folders[:1],
            [own_weights],
            weights_dir=tmp_path,
            seed=1,
            device="cpu",
            prompts=["one_point"],
        )

    first, store = plan(), Store(tmp_path / "rows")
    units.run_units(first, store, workers=0)
    state = read_weights(tmp_path / "own.pt")
    state["sam_mask_decoder.iou_token.weight"] *= 1.5
    torch.save(state, tmp_path / "own.pt")
    outcome = units.run_units(first, Store(tmp_path / "other"), workers=0)
    assert "own.pt: has changed since the study was planned" in outcome.error[0]
    second = plan()
    units.run_units(second, store, workers=0)
    assert first[0].key.checkpoint_sha256 != second[0].key.checkpoint_sha256
    assert not store.read([first[0].key]).score.equals(store.read([second[0].key]).score)
    record = units.provenance(store, [second[0].key], {})
    assert record["unverified_weights"] == ["miniature_sam2"]
    assert record["checkpoints"] == {"miniature_sam2": second[0].key.checkpoint_sha256}


def test_useless_weights_stop_before_any_case_and_never_give_a_score_of_zero(folders, own_weights, tmp_path):
    state = read_weights(tmp_path / "own.pt")
    plan = {"weights_dir": tmp_path, "seed": 1, "device": "cpu", "prompts": ["one_point"]}
    torch.save({"model": {name: value * float("nan") for name, value in state.items()}}, tmp_path / "own.pt")
    with pytest.raises(CheckpointError, match="NaN"):
        units.plan_units("2d", folders, [own_weights], **plan)
    torch.save({"model": {name: value.sign() * 1e8 for name, value in state.items()}}, tmp_path / "own.pt")
    chosen = units.plan_units("2d", folders[:1], [own_weights], **plan)  # finite, but nothing comes of them
    outcome = units.run_units(chosen, Store(tmp_path / "rows"), workers=0)
    assert list(outcome.status) == ["failed"] and "gives NaN or infinity on slice 0" in outcome.error[0]
