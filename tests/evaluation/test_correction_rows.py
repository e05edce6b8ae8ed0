"""Rows of corrections: they begin where 2D and 3D end, fit the table, and come out the same after a stop."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.volumes import disc_case, shipped

from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders
from medsam_nb.errors import StudyError
from medsam_nb.evaluation import correction_rows, units
from medsam_nb.evaluation.correction_rows import evaluate_clicks, evaluate_loops
from medsam_nb.evaluation.rows import evaluate_2d, evaluate_3d
from medsam_nb.evaluation.store import Store
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.models.checkpoints import load_model
from medsam_nb.protocol import corrections
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.options import PropagationOptions
from medsam_nb.protocol.table import FACTORS, as_table
from medsam_nb.statistics.pooling import check_table

ROOT = Path(__file__).parents[2]
SEED = 5
INITIAL = ["one_point", "one_box"]


@pytest.fixture(scope="module")
def model():
    return shipped()


@pytest.fixture(scope="module")
def case():
    return disc_case()


@pytest.fixture(scope="module")
def clicked(model, case):
    return check_table(as_table(evaluate_clicks(model, case, INITIAL, seed=SEED, clicks=3)))


@pytest.fixture(scope="module")
def looped(model, case):
    return check_table(as_table(evaluate_loops(model, case, INITIAL, seed=SEED, loops=2)))


def test_a_curve_of_clicks_begins_with_the_row_of_2d(model, case, clicked):
    flat = as_table(evaluate_2d(model, case, INITIAL, seed=SEED))
    flat = flat[flat["mask_choice"] == "most_confident_mask"]
    place = ["object", "slice_index", "prompt"]
    begun = clicked[clicked["loop"] == 0].set_index(place).sort_index()
    flat = flat.set_index(place).sort_index()
    for column in ("value", "score", "predicted_px", "truth_px", "n_components"):
        assert begun[column].to_numpy().tolist() == flat[column].to_numpy().tolist(), column
    curves = clicked.groupby(place)["loop"].apply(list)
    assert all(one == list(range(len(one))) for one in curves) and max(map(len, curves)) == 4
    assert (clicked["n_prompts"] == clicked["loop"] + 1).all()


def test_sam_is_clicked_too(case):
    row = load_manifest(ROOT / "data_manifest.yaml").checkpoint("miniature_sam")
    sam = load_model(row, ROOT / "weights", device="cpu")
    table = as_table(evaluate_clicks(sam, case, ["one_box"], seed=SEED, clicks=1, objects=["bar"]))
    assert set(table["object"]) == {"bar"} and set(table["loop"]) == {0, 1}


def test_a_curve_of_loops_begins_with_the_row_of_3d(model, case):
    for choice in ("most_confident_mask", "first_mask"):
        designs = [Design("centre_slice", prompt, "bidirectional", choice) for prompt in INITIAL]
        deep = as_table(evaluate_3d(model, case, designs, seed=SEED))
        given = {"seed": SEED, "mask_choice": choice, "new_information": ["mask"]}
        rows = as_table(evaluate_loops(model, case, INITIAL, loops=1, **given))
        place = ["object", "slice_index", "prompt"]
        deep = deep.set_index(place).sort_index()
        begun = rows[rows["loop"] == 0]
        for _, curve in begun.groupby(["strategy", "new_information"]):
            curve = curve.set_index(place).sort_index()
            for column in ("value", "distance_slices", "prompted_slices", "frame_choice", "n_components"):
                assert curve[column].tolist() == deep[column].tolist(), column
            assert curve["score"].fillna(-1).tolist() == deep["score"].fillna(-1).tolist()


def test_prompts_are_counted_and_named_in_the_rows(looped):
    assert set(looped["strategy"]) == {corrections.RUNNING, corrections.RESTARTED, corrections.FRESH}
    assert set(looped["new_information"]) == set(corrections.NEW_INFORMATION)
    fresh = looped[looped["strategy"] == corrections.FRESH]
    assert (fresh["n_prompts"] == fresh["loop"] + 1).all()
    running = looped[looped["strategy"] == corrections.RUNNING]
    slices = running["prompted_slices"].str.count(";") + 1
    assert (running["n_prompts"] == slices).all() and running["n_prompts"].max() == 3
    masks = looped[(looped["new_information"] == "mask") & (looped["prompt"] == "one_point")]
    means = masks.astype({"value": float}).groupby(["strategy", "loop"])["value"].mean()
    for strategy in corrections.STRATEGIES_3D:
        assert means[strategy].iloc[-1] > means[strategy, 0]


def test_the_last_row_of_a_curve_that_stops_early_says_why(looped):
    curve = ["object", "prompt", "strategy", "new_information"]
    for key, rows in looped[looped["strategy"] != corrections.RESTARTED].groupby(curve):
        last = rows["loop"] == rows["loop"].max()
        assert rows.loc[~last, "ended"].isna().all(), key
        assert rows.loc[last, "ended"].isna().all() == (rows["loop"].max() == 2), key
    # The bar has two slices: both are prompted after one loop.
    assert set(looped["ended"].dropna()) == {corrections.NOTHING_IN_REACH, corrections.NOTHING_MISSED}


def test_what_the_columns_of_corrections_mean_for_other_rows():
    other = as_table([{"task": "2d", "case_id": "a"}])
    assert other[["strategy", "new_information", "loop", "n_prompts", "ended"]].isna().all(axis=None)
    assert {"strategy", "new_information", "loop"} <= set(FACTORS)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"initial_prompts": ["box_per_component"]}, "initial prompt"),
        ({"mask_choice": "oracle_mask"}, "mask choice"),
        ({"frame_choice": "center_slice"}, "centre_slice"),
        ({"options": PropagationOptions(mask_scope="prompted")}, "mask scope all"),
        ({"new_information": ["mesk"]}, "mask"),
        ({"strategies": ["correct"]}, "correction"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_names_that_are_not_known_are_refused(model, case, wrong, says):
    given = {"initial_prompts": ["one_point"], "seed": 1, "loops": 1} | wrong
    with pytest.raises(StudyError, match=says):
        evaluate_loops(model, case, **given)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    place = tmp_path_factory.mktemp("prepared")
    prepare(
        load_manifest(ROOT / "data_manifest.yaml").data_set("simulated_xray"), place, place, progress=False
    )
    return case_folders(place, "simulated_xray")


def planned(task, folders, **parameters):
    row = load_manifest(ROOT / "data_manifest.yaml").checkpoint("miniature_sam2")
    place = {"weights_dir": ROOT / "weights", "seed": 1, "device": "cpu", "initial_prompts": ["one_box"]}
    return units.plan_units(task, folders, [row], **place, **parameters)


def test_a_study_stopped_between_clicks_or_loops_gives_the_same_table(prepared, tmp_path, monkeypatch):
    """A unit that was stopped leaves nothing, the others stay: the table is that of a run without a stop."""
    for task, name, parameters in (
        ("2d_clicks", "click_loops", {"clicks": 2}),
        ("3d_loops", "correction_loops", {"loops": 1}),
    ):
        chosen = planned(task, prepared[:2], **parameters)
        whole, stopped = Store(tmp_path / task / "whole"), Store(tmp_path / task / "stopped")
        assert set(units.run_units(chosen, whole, workers=0)["status"]) == {"computed"}
        units.run_units(chosen[:1], stopped, workers=0)
        with monkeypatch.context() as patch:
            original = getattr(correction_rows, name)

            def stopping(*arguments, original=original, **named):
                found = original(*arguments, **named)
                yield next(found)
                yield next(found)
                raise KeyboardInterrupt

            patch.setattr(correction_rows, name, stopping)
            with pytest.raises(KeyboardInterrupt):
                units.run_units(chosen, stopped, workers=0)
        assert units.finished(chosen, stopped) == [chosen[0].key]
        assert list(units.run_units(chosen, stopped, workers=2)["status"]) == ["stored", "computed"]
        keys = [unit.key for unit in chosen]
        pd.testing.assert_frame_equal(whole.read(keys), stopped.read(keys))


def test_what_is_asked_of_corrections_is_in_the_key(prepared):
    keys = [
        planned("2d_clicks", prepared[:1], clicks=2)[0].key,
        planned("2d_clicks", prepared[:1], clicks=3)[0].key,
        planned("3d_loops", prepared[:1], loops=2)[0].key,
        planned("3d_loops", prepared[:1], loops=2, new_information=["mask"])[0].key,
        planned("3d_loops", prepared[:1], loops=2, strategies=["correction"])[0].key,
    ]
    assert len({key.digest for key in keys}) == len(keys)
    assert np.unique([key.task for key in keys]).tolist() == ["2d_clicks", "3d_loops"]
