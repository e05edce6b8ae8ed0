"""The tidy table on disk: atomic, keyed, in one order."""

import dataclasses

import pandas as pd
import pytest
from helpers.keys import run_key

from medsam_nb.errors import InputError
from medsam_nb.evaluation.store import Store
from medsam_nb.files import write_atomically
from medsam_nb.protocol.table import COLUMNS, RunKey, as_table


def rows(case="case", values=(0.5, 0.25)):
    return [
        {
            "task": "2d",
            "data_set": "set",
            "case_id": case,
            "object": "o",
            "slice_index": i,
            "metric": "iou",
            "value": v,
        }
        for i, v in enumerate(values)
    ]


def test_every_field_that_determines_a_value_changes_the_digest():
    changed = {
        field.name: run_key(**{field.name: 2 if field.name == "seed" else "other"}).digest
        for field in dataclasses.fields(RunKey)
    }
    assert changed.pop("patient_id") == run_key().digest
    assert run_key(patient_id="other") == run_key()
    assert len({run_key().digest, *changed.values()}) == len(changed) + 1


def test_rows_are_of_the_patient_that_the_key_names_now(tmp_path):
    store = Store(tmp_path)
    store.write(run_key(), rows(), {})
    assert set(store.read([run_key()]).patient_id) == {"case"}
    assert store.has(run_key(patient_id="p7"))
    assert set(store.read([run_key(patient_id="p7")]).patient_id) == {"p7"}


def test_rows_come_back_in_one_order_with_their_key(tmp_path):
    store = Store(tmp_path)
    first, second = run_key(case_id="a"), run_key(case_id="b")
    store.write(second, rows("b"), {"seconds": 1})
    store.write(first, rows("a")[::-1], {"seconds": 1})
    table = store.read([second, first])
    assert list(table.columns) == list(COLUMNS)
    assert list(table.case_id) == ["a", "a", "b", "b"]
    assert list(table.slice_index) == [0, 1, 0, 1]
    assert set(table.run_key) == {first.digest, second.digest}
    pd.testing.assert_frame_equal(table, store.read([first, second]))
    assert store.records([first])[0]["key"]["case_id"] == "a"


def test_a_unit_without_its_record_is_not_finished(tmp_path):
    store = Store(tmp_path)
    store.write(run_key(), rows(), {})
    (tmp_path / f"{run_key().digest}.json").unlink()
    assert not store.has(run_key())


def test_a_damaged_file_is_named(tmp_path):
    store = Store(tmp_path)
    store.write(run_key(), rows(), {})
    path = tmp_path / f"{run_key().digest}.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=f"{path.name}.*computed anew"):
        store.read([run_key()])


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "rows", b"data")
    assert list(tmp_path.iterdir()) == []


def test_results_have_the_permissions_of_any_other_file(tmp_path):
    (tmp_path / "other").write_bytes(b"")
    write_atomically(tmp_path / "rows", b"data")
    assert (tmp_path / "rows").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_row_without_a_patient_is_of_its_own():
    table = as_table([{"case_id": "a"}, {"case_id": "b", "patient_id": "p"}])
    assert list(table.patient_id) == ["a", "p"]


def test_an_unknown_column_is_refused():
    with pytest.raises(InputError, match="colour"):
        as_table([{"colour": 1}])


def test_tables_of_before_have_the_prompts_of_the_truth():
    assert "prompt_source" not in rows()[0]
    assert list(as_table(rows()).prompt_source) == ["truth", "truth"]
    assert list(as_table([rows()[0] | {"prompt_source": "jittered:0.1:0"}]).prompt_source) == [
        "jittered:0.1:0"
    ]
