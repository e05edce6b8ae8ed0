"""Jobs on disk: split by patient, killed and resumed to the same bits, rows that refuse their patients."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.jobs import train

from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders, load_case
from medsam_nb.errors import StudyError
from medsam_nb.evaluation.rows import evaluate_2d, evaluate_3d
from medsam_nb.evaluation.units import plan_units
from medsam_nb.finetuning import jobs as on_disk
from medsam_nb.finetuning.plan import ALL, overview, plan, usable_cases
from medsam_nb.finetuning.settings import LEARNS
from medsam_nb.manifest.fine_tuned import with_fine_tuned
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.manifest.rows import DataSet
from medsam_nb.models.checkpoints import load_model
from medsam_nb.protocol.designs import Design
from medsam_nb.workbook.run import Run

ROOT = Path(__file__).parents[2]
MANIFEST = load_manifest(ROOT / "data_manifest.yaml")
PARENT = MANIFEST.checkpoint("miniature_sam2")
DESIGN = Design("centre_slice", "one_box", "bidirectional", "most_confident_mask")
PATIENTS = 5


def row(name, seeds):
    cases = [{"seed": seed, "shape": [8, 64, 64], "spacing_mm": [5.0, 3.0, 3.0]} for seed in seeds]
    given = MANIFEST.data_set("simulated_ultrasound")
    of_ultrasound = given.model_dump(mode="json", exclude={"layout", "expected"}, exclude_defaults=True)
    layout = {"name": "simulated", "modality": "ultrasound", "cases": cases}
    return DataSet.model_validate(of_ultrasound | {"name": name, "layout": layout})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder of prepared cases of two data sets."""
    place = tmp_path_factory.mktemp("prepared")
    for name, seeds in (("sweeps", range(700, 700 + PATIENTS)), ("others", (800,))):
        prepare(row(name, seeds), place / "raw", place / "prepared", progress=False)
    return place / "prepared"


def planned(prepared, **changes):
    given = {"objects": ["organ"], "learns": ["mask_decoder"], "training_patients": [1, ALL], "repeats": 1}
    given |= {"held_out_patients": 2, "seed": 7, "slices": 8, "learning_rate": 1e-3}
    cases = usable_cases(case_folders(prepared, "sweeps"), ["organ"])
    return plan(PARENT, PARENT.sha256, cases, **given | changes)


def patients(cases):
    return {case.patient for case in cases}


@pytest.mark.parametrize("held_out", [0, 1, 2, 4])
def test_no_patient_is_both_trained_on_and_measured_on(prepared, held_out):
    found = planned(prepared, held_out_patients=held_out, repeats=3, learns=LEARNS)
    everyone = patients(usable_cases(case_folders(prepared, "sweeps"), []))
    assert len(everyone) == PATIENTS
    for job in found:
        assert job.cases and job.held_out and not patients(job.cases) & patients(job.held_out)
        if job.patients == ALL:
            assert patients(job.cases) | patients(job.held_out) == everyone
    measured = {job.fold: patients(job.held_out) for job in found}
    assert sum(map(len, measured.values())) == (PATIENTS if held_out == 0 else held_out)
    budgets = overview(found).groupby("learns")["slices"].unique()
    assert all(list(budget) == [8] for budget in budgets)  # the same for every arm
    assert len({(job.name, job.fold) for job in found}) == len(found)


def test_fewer_patients_are_a_part_of_more_and_repeats_differ(prepared):
    found = planned(prepared, held_out_patients=1, training_patients=[0, 1, 2, 3, ALL], repeats=4)
    for repeat in range(4):
        order = [patients(job.cases) for job in found if job.repeat == repeat]
        assert [len(some) for some in order] == [1, 2, 3, 4]
        assert all(less < more for less, more in zip(order, order[1:], strict=False))
    assert len({frozenset(patients(job.cases)) for job in found if job.patients == 1}) > 1
    assert len({job.settings.seed for job in found}) == 4
    again = planned(prepared, held_out_patients=1, training_patients=[0, 1, 2, 3, ALL], repeats=4)
    assert [job.name for job in again] == [job.name for job in found]


def test_too_few_patients_are_named(prepared):
    with pytest.raises(StudyError, match="4 are wanted, but 3 are left for training"):
        planned(prepared, training_patients=[4])
    with pytest.raises(StudyError, match="split by patient"):
        planned(prepared, held_out_patients=PATIENTS)


@pytest.mark.parametrize("learns", LEARNS)
def test_a_run_that_was_killed_goes_on_to_the_same_checkpoint(prepared, tmp_path, learns):
    slices = 24 if learns == "memory" else 12
    job = planned(prepared, learns=[learns], training_patients=[ALL], slices=slices)[0]
    assert on_disk.advance(job, tmp_path / "whole", "cpu", seconds=600) == 6
    process = multiprocessing.get_context("spawn").Process(target=train, args=(job, tmp_path / "killed"))
    process.start()
    state = on_disk.state_file(job, tmp_path / "killed")
    while not state.exists():
        assert process.is_alive()
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not on_disk.is_finished(job, tmp_path / "killed")
    done = len(torch.load(state, weights_only=True)["losses"])
    assert 0 < done < 6
    (progress,) = on_disk.train_all([job], tmp_path / "killed", workers=0, device="cpu")
    assert progress.steps == 6 and not progress.error and not state.exists()
    whole, resumed = (on_disk.weights_file(job, tmp_path / one).read_bytes() for one in ("whole", "killed"))
    assert whole == resumed


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory):
    """A folder of weights with what two jobs left, and the jobs."""
    folder = tmp_path_factory.mktemp("weights")
    found = planned(prepared, learns=["lora"], training_patients=[1])
    found += planned(prepared, learns=LEARNS, training_patients=[ALL], slices=0)
    assert [p.error for p in on_disk.train_all(found, folder, workers=0, device="cpu")] == [""] * len(found)
    return folder, found


def rows_of(model, case):
    found = evaluate_2d(model, case, ["one_box", "one_point"], seed=1, objects=["organ"])
    return found + evaluate_3d(model, case, [DESIGN], seed=1, objects=["organ"])


def test_no_steps_are_the_parent_bit_for_bit(prepared, trained, tmp_path):
    folder, found = trained
    case = load_case(case_folders(prepared, "sweeps")[0])
    values = [[(row["value"], row["score"]) for row in rows_of(load_model(PARENT, ROOT), case)]]
    for job in found[1:]:
        checkpoint = with_fine_tuned(MANIFEST, folder).checkpoint(job.name)
        assert checkpoint.fine_tuned.steps == 0
        model = load_model(checkpoint, folder)
        values.append([(row["value"], row["score"]) for row in rows_of(model, case)])
    assert len(values) == 4 and all(one == values[0] for one in values)


def test_a_checkpoint_can_be_used_at_once_and_says_what_it_is(prepared, trained):
    folder, (job, *_) = trained
    manifest = with_fine_tuned(MANIFEST, folder)
    checkpoint = manifest.checkpoint(job.name)
    made = checkpoint.fine_tuned
    assert made.parent == "miniature_sam2" and made.parent_sha256 == PARENT.sha256
    assert set(made.patients) == patients(job.cases) and len(made.patients) == 1
    assert made.split == "2 of 5 patients held out, seed 7, repeat 0" and made.slices == 8
    others = [case.folder for case in job.held_out] + case_folders(prepared, "others")
    units = plan_units("2d", others, [checkpoint], weights_dir=folder, seed=1, prompts=["one_box"])
    assert len(units) == 3
    parent, own = (load_model(row, folder) for row in (PARENT, checkpoint))
    assert any(
        not torch.equal(a, b)
        for a, b in zip(parent.network.parameters(), own.network.parameters(), strict=True)
    )


def test_a_notebook_that_asks_for_patients_of_the_training_is_refused(prepared, trained, tmp_path):
    folder, (job, *_) = trained
    (seen,) = job.cases
    manifest = with_fine_tuned(MANIFEST, folder)
    rows = {name: row(name, [1]) for name in ("sweeps", "others")}
    manifest = manifest.model_copy(update={"data_sets": rows})
    given = {"prepared_dir": prepared, "weights_dir": folder, "workers": 0, "features_gb": 0, "seed": 1}
    run = Run("02_evaluate_2d", ROOT, tmp_path, manifest)
    message = f"{job.name}: was trained on patients that it is to be measured on: sweeps/{seen.case_id}"
    with pytest.raises(StudyError, match=message):
        run.evaluate("2d", ["sweeps"], [job.name], prompts=["one_box"], **given)
    with pytest.raises(StudyError, match="trained on patients"):
        run.evaluate("3d", ["others", "sweeps"], [job.name], designs=[DESIGN], **given)
    table = run.evaluate("2d", ["others"], [job.name], prompts=["one_box"], objects=["organ"], **given)
    assert set(table.data_set) == {"others"} and np.isfinite(table.value.astype(float)).all()


def test_the_same_voxels_under_another_name_are_refused(prepared, trained, tmp_path):
    folder, (job, *_) = trained
    (seen,) = job.cases
    prepare(row("renamed", range(700, 700 + PATIENTS)), tmp_path, tmp_path / "prepared", progress=False)
    checkpoint = with_fine_tuned(MANIFEST, folder).checkpoint(job.name)
    copies = case_folders(tmp_path / "prepared", "renamed")
    with pytest.raises(StudyError, match=f"renamed/{seen.case_id}\\.") as error:
        plan_units("2d", copies, [checkpoint], weights_dir=folder, seed=1, prompts=["one_box"])
    assert "left_out_cases" in str(error.value)


def test_a_failed_job_stops_no_other(prepared, tmp_path):
    good, bad = planned(prepared, slices=2)
    bad = type(bad)(**{**vars(bad), "objects": ("no_such_object",)})
    found = {p.job.name: p for p in on_disk.train_all([bad, good], tmp_path, workers=0, device="cpu")}
    assert found[bad.name].error and not found[good.name].error
    assert on_disk.is_finished(good, tmp_path) and not on_disk.is_finished(bad, tmp_path)
