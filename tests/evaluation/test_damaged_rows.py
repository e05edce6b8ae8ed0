"""Damage to the store: every kind is found, named, and computed again; none is read as truth."""

import json
import os
import shutil
import warnings
from pathlib import Path

import pandas as pd
import pytest
from helpers.keys import run_key

from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders
from medsam_nb.errors import InputError, StudyError
from medsam_nb.evaluation import units
from medsam_nb.evaluation.store import Store
from medsam_nb.manifest.reading import load_manifest

ROOT = Path(__file__).parents[2]
KEY, OTHER = run_key(), run_key(task="3d")
PROVENANCE = {"seconds": 1.0, "hole_filling": False, "weights_verified": True}


def rows(value):
    common = {"task": "2d", "data_set": "set", "case_id": "case", "object": "o", "metric": "iou"}
    return [common | {"slice_index": index, "value": value} for index in range(50)]


@pytest.fixture
def store(tmp_path):
    written = Store(tmp_path)
    written.write(KEY, rows(0.5), PROVENANCE)
    written.write(OTHER, rows(0.25), PROVENANCE)
    return written


def parquet(change):
    """Damage that reads the rows, changes them and writes them again, as an editor of Parquet would."""

    def damage(path, record):
        change(pd.read_parquet(path)).to_parquet(path, index=False)

    return damage


def bytes_of_rows(change):
    return lambda path, record: path.write_bytes(change(path.read_bytes()))


def json_of_record(change):
    def damage(path, record):
        content = json.loads(record.read_text(encoding="utf-8"))
        record.write_text(json.dumps(change(content)), encoding="utf-8")

    return damage


def without(field):
    return json_of_record(lambda record: {name: value for name, value in record.items() if name != field})


def text_of_record(data):
    return lambda path, record: record.write_bytes(data)


def flipped(data, place):
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


def other(path):
    return path.with_name(f"{OTHER.digest}{path.suffix}")


def as_folder(path):
    path.unlink()
    path.mkdir()


def dangling(path):
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


DAMAGE = {
    "a value was edited": parquet(lambda t: t.assign(value=t["value"] + 0.1)),
    "a name was edited": parquet(lambda t: t.assign(object="liver").astype({"object": "string"})),
    "rows were removed": parquet(lambda t: t.iloc[:-1]),
    "all rows were removed": parquet(lambda t: t.iloc[:0]),
    "rows were repeated": parquet(lambda t: pd.concat([t, t])),
    "rows were turned round": parquet(lambda t: t.iloc[::-1]),
    "a column was removed": parquet(lambda t: t.drop(columns="score")),
    "the key's column was removed": parquet(lambda t: t.drop(columns="run_key")),
    "a column was added": parquet(lambda t: t.assign(more=1)),
    "a column was renamed": parquet(lambda t: t.rename(columns={"value": "wert"})),
    "columns changed places": parquet(lambda t: t[sorted(t.columns)]),
    "numbers became text": parquet(lambda t: t.assign(value=t["value"].astype(str))),
    "another key in the rows": parquet(lambda t: t.assign(run_key=OTHER.digest)),
    "another unit's rows": lambda path, record: shutil.copy(other(path), path),
    "another unit's record": lambda path, record: shutil.copy(other(record), record),
    "another unit's rows and record": lambda path, record: (
        shutil.copy(other(path), path),
        shutil.copy(other(record), record),
    ),
    "empty rows": bytes_of_rows(lambda data: b""),
    "rows cut in half": bytes_of_rows(lambda data: data[: len(data) // 2]),
    "rows without their last byte": bytes_of_rows(lambda data: data[:-1]),
    "rows with a byte more": bytes_of_rows(lambda data: data + b"\0"),
    "the first bit": bytes_of_rows(lambda data: flipped(data, 0)),
    "a bit in the middle": bytes_of_rows(lambda data: flipped(data, len(data) // 2)),
    "the last bit": bytes_of_rows(lambda data: flipped(data, -1)),
    "zeros": bytes_of_rows(lambda data: bytes(len(data))),
    "a block of zeros": bytes_of_rows(lambda data: data[:100] + bytes(100) + data[200:]),
    "rows as CSV": lambda path, record: pd.read_parquet(path).to_csv(path),
    "rows as a folder": lambda path, record: as_folder(path),
    "a pickle": bytes_of_rows(lambda data: b"\x80\x04cos\nsystem\n(S'touch ran'\ntR."),
    "no record": lambda path, record: record.unlink(),
    "an empty record": text_of_record(b""),
    "a record cut in half": lambda path, record: record.write_bytes(record.read_bytes()[:300]),
    "a list as record": text_of_record(b"[]"),
    "null as record": text_of_record(b"null"),
    "a word as record": text_of_record(b'"done"'),
    "an empty object as record": text_of_record(b"{}"),
    "a binary record": text_of_record(bytes(range(256))),
    "a record in UTF-16": lambda path, record: record.write_bytes(record.read_text().encode("utf-16")),
    "a deep record": text_of_record(b'{"key":' * 50_000),
    "a record as a folder": lambda path, record: as_folder(record),
    "a record that leads nowhere": lambda path, record: dangling(record),
    "a record of another case": json_of_record(lambda r: r | {"key": r["key"] | {"case_id": "other"}}),
    "a record of other weights": json_of_record(lambda r: r | {"key": r["key"] | {"model": "other"}}),
    "a record without key": without("key"),
    "a key as text": json_of_record(lambda r: r | {"key": "2d"}),
    "a record without digest": without("rows"),
    "a digest of nothing": json_of_record(lambda r: r | {"rows": {"bytes": 3}}),
    "another digest": json_of_record(lambda r: r | {"rows": r["rows"] | {"sha256": "0" * 64}}),
    "a digest as number": json_of_record(lambda r: r | {"rows": r["rows"] | {"sha256": 0}}),
    "a record without provenance": without("provenance"),
    "provenance as text": json_of_record(lambda r: r | {"provenance": "mine"}),
    "NaN in a record": lambda path, record: record.write_text(record.read_text().replace("1.0", "NaN")),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_named_and_mended(name, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = store.read([KEY, OTHER])
    path = tmp_path / f"{KEY.digest}.parquet"
    DAMAGE[name](path, path.with_suffix(".json"))
    found = store.damage(KEY)
    assert isinstance(found, InputError) and KEY.digest in found.item
    with pytest.raises(InputError, match=KEY.digest):
        store.read([KEY])
    assert store.damage(OTHER) is None and len(store.read([OTHER])) == 50
    store.forget(KEY)
    assert not store.has(KEY)
    for folder in filter(Path.is_dir, (path, path.with_suffix(".json"))):
        folder.rmdir()  # as the message says: only a folder stands in the way of a file
    store.write(KEY, rows(0.5), PROVENANCE)
    assert store.damage(KEY) is None and store.has(KEY)
    pd.testing.assert_frame_equal(store.read([KEY, OTHER]), whole)
    assert not (tmp_path / "ran").exists()


def test_what_an_ended_run_leaves_is_no_damage(store, tmp_path):
    (tmp_path / f"{KEY.digest}.parquet").unlink()
    assert store.damage(KEY) is None and not store.has(KEY)
    (tmp_path / f"{KEY.digest}.json").unlink()
    assert store.damage(KEY) is None and not store.has(KEY)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    place = tmp_path_factory.mktemp("prepared")
    manifest = load_manifest(ROOT / "data_manifest.yaml")
    prepare(manifest.data_set("simulated_xray"), place, place, progress=False)
    return units.plan_units(
        "2d",
        case_folders(place, "simulated_xray"),
        [manifest.checkpoint("miniature_sam2")],
        weights_dir=ROOT / "weights",
        seed=1,
        device="cpu",
        prompts=["one_point"],
    )


def test_a_study_computes_damaged_units_again_with_a_warning_that_names_them(planned, tmp_path):
    store, keys = Store(tmp_path), [unit.key for unit in planned]
    assert set(units.run_units(planned, store, workers=0).status) == {"computed"}
    whole = store.read(keys)
    for kinds in (
        ("a value was edited", "a record cut in half", "zeros"),
        ("a bit in the middle", "no record", "another digest"),
    ):
        for key, kind in zip(keys, kinds, strict=True):
            path = tmp_path / f"{key.digest}.parquet"
            DAMAGE[kind](path, path.with_suffix(".json"))
        with pytest.warns(UserWarning) as caught:
            outcome = units.run_units(planned, store, workers=0)
        said = [str(one.message) for one in caught if "is computed again" in str(one.message)]
        assert len(said) == 3 and all(any(key.digest in line for line in said) for key in keys)
        assert set(outcome.status) == {"computed"}
        pd.testing.assert_frame_equal(store.read(keys), whole)
    with warnings.catch_warnings(action="error", category=UserWarning):
        assert set(units.run_units(planned, store, workers=0).status) == {"stored"}


def test_exchanged_rows_are_computed_again(planned, tmp_path):
    store, keys = Store(tmp_path), [unit.key for unit in planned]
    units.run_units(planned[:2], store, workers=0)
    whole = store.read(keys[:2])
    first, second = (tmp_path / f"{key.digest}.parquet" for key in keys[:2])
    for suffix in (".parquet", ".json"):
        between = tmp_path / "between"
        os.replace(first.with_suffix(suffix), between)
        os.replace(second.with_suffix(suffix), first.with_suffix(suffix))
        os.replace(between, second.with_suffix(suffix))
    with pytest.warns(UserWarning, match="record of another unit"):
        units.run_units(planned[:2], store, workers=0)
    pd.testing.assert_frame_equal(store.read(keys[:2]), whole)


def test_a_folder_in_the_way_is_said_before_anything_is_lost(planned, tmp_path):
    (tmp_path / f"{planned[0].key.digest}.parquet").mkdir()
    with (
        pytest.warns(UserWarning, match="is computed again"),
        pytest.raises(StudyError, match="parquet: results cannot be written"),
    ):
        units.run_units(planned[:1], Store(tmp_path), workers=0)
