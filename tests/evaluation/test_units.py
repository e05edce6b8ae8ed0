"""Units of work: failures are counted, finished ones are kept, workers and order change nothing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medsam_nb.data.prepare import case_folders, prepare
from medsam_nb.errors import CheckpointError
from medsam_nb.evaluation import units
from medsam_nb.evaluation.store import Store
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.models import features

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
    name, _ = features.encoder_of(
        units.loaded_model(others[0].checkpoint, ROOT / "weights", "cpu", "float32")
    )

    def refuse(grey):
        raise AssertionError("encoded again")

    monkeypatch.setattr(features, "encoder_of", lambda model, frames: (name, refuse))
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
