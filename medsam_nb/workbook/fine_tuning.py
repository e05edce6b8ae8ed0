"""Fine-tuning for the notebook and the command: plan, train with progress, measure, say what was found."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm import tqdm

from medsam_nb.data.cluster import LOCAL
from medsam_nb.errors import StudyError
from medsam_nb.figures.words import counted, label
from medsam_nb.manifest.fine_tuned import FOLDER, with_fine_tuned
from medsam_nb.provenance import as_json
from medsam_nb.statistics import fine_tuning as arms
from medsam_nb.statistics.inference import ALPHA
from medsam_nb.workbook import report
from medsam_nb.workbook.owner import claim, computing
from medsam_nb.workbook.progress import say
from medsam_nb.workbook.resolve import opened_study
from medsam_nb.workbook.run import Run, collected, open_run
from medsam_nb.workbook.study import defaults, find_study, load_study, run_folder

if TYPE_CHECKING:
    from medsam_nb.finetuning.plan import Job

NOTEBOOK = "13_fine_tune"
# Parameters of the notebook that a plan needs under the same names.
PLANNED = ("objects", "learns", "training_patients", "held_out_patients", "repeats", "seed", "learning_rate")


def plan_jobs(
    run: Run,
    parent: str,
    data_sets: Sequence[str],
    *,
    prepared_dir: str | Path,
    weights_dir: str | Path,
    device: str,
    training_slices: int,
    **planned: object,
) -> list[Job]:
    """Return the jobs of a notebook's parameters; see `finetuning.plan.plan`.

    Parameters
    ----------
    run : Run
    parent : str
        Row of the manifest, of the family "sam2".
    data_sets : sequence of str
    prepared_dir, weights_dir : str or Path
    device : str
    training_slices : int
        Budget of every job.
    **planned
        `PLANNED`.

    Raises
    ------
    StudyError
        If there are too few patients, or the parent has no memory.
    CheckpointError
        If the parent's weights are missing or of no use.
    """
    from medsam_nb.finetuning import plan
    from medsam_nb.models.checkpoints import choose_device, device_facts, usable_sha256

    row = run.manifest.checkpoint(parent)
    if row.family != "sam2":
        raise StudyError(f"model {parent}", f"is of the family {row.family}.", "Fine-tune models of sam2.")
    cases = plan.usable_cases(run.case_folders(data_sets, prepared_dir), planned["objects"])
    if not cases:
        raise StudyError("study", "there is no prepared case.", "Run 01_prepare_data first.")
    place = choose_device(device)
    return plan.plan(
        row,
        usable_sha256(row, run.root / weights_dir),
        cases,
        slices=training_slices,
        device_facts=as_json({"kind": place.type} | device_facts(place)),
        **planned,
    )


def train(
    run: Run,
    jobs: Sequence[Job],
    weights_dir: str | Path,
    *,
    workers: int,
    device: str,
    cluster: str = LOCAL,
) -> pd.DataFrame:
    """Train what is not trained yet, with a bar of slices shown; the run then knows the new checkpoints.

    Within `run.collecting` nothing is trained.

    Returns
    -------
    DataFrame
        A line per job (`plan.overview`) with its `error`, empty where it is finished.

    Raises
    ------
    StudyError
        If every job failed.
    """
    from medsam_nb.finetuning import jobs as on_disk
    from medsam_nb.finetuning import plan

    table = plan.overview(jobs)
    if (found := collected()) is not None:
        found.trainings.append(asked := on_disk.Trainings(list(jobs), run.root / weights_dir, device))
        unfinished = [job.name for job in asked.waiting]
        return table.assign(error=["not trained yet" if m in unfinished else "" for m in table["model"]])
    sizes = {job.name: job.settings.steps for job in jobs}
    per_step = {job.name: job.settings.slices_per_step for job in jobs}
    done, errors = dict.fromkeys(sizes, 0), dict.fromkeys(sizes, "")
    total = sum(sizes[name] * per_step[name] for name in sizes)
    turn = computing(run.folder, cluster)
    with turn, tqdm(total=total, desc="fine-tuning", unit="slice", file=sys.stdout) as bar:
        place = {"workers": workers, "device": device, "cluster": cluster}
        for found in on_disk.train_all(jobs, run.root / weights_dir, **place):
            name = found.job.name
            bar.update((found.steps - done[name]) * per_step[name] if not found.error else 0)
            done[name], errors[name] = found.steps, found.error
    run.manifest = with_fine_tuned(run.manifest, run.root / weights_dir)
    table["error"] = table["model"].map(errors)
    report.save_table(_as_units(jobs, errors), run.folder, "units_fine_tuning")
    if len(table) and (table["error"] != "").all():
        raise StudyError("fine-tuning", f"all {len(errors)} checkpoints failed.", table["error"].iloc[0])
    return table


def _as_units(jobs: Sequence[Job], errors: Mapping[str, str]) -> pd.DataFrame:
    """Return how every training ended, as units of work say it: the report counts what failed."""
    return pd.DataFrame(
        {
            "data_set": job.cases[0].data_set,
            "case_id": job.name,
            "task": "fine-tuning",
            "status": "failed" if errors[job.name] else "computed",
            "error": errors[job.name],
        }
        for job in {job.name: job for job in jobs}.values()
    )


def held_out(jobs: Sequence[Job]) -> dict[str, set[tuple[str, str]]]:
    """Return the cases that each checkpoint may be measured on, and the parent on all of them."""
    found: dict[str, set[tuple[str, str]]] = {}
    for job in jobs:
        cases = {(case.data_set, case.case_id) for case in job.held_out}
        for name in (job.parent.name, job.name):
            found[name] = found.get(name, set()) | cases
    return found


def what_it_brings(result: pd.DataFrame, parent: str, data_sets: Sequence[str]) -> str:
    """Return, in a sentence for 2D and 3D each, what fine-tuning changed on patients held out.

    Parameters
    ----------
    result : DataFrame
        Of `paired.compare` with a column `learns`: the arms with most patients against the parent,
        named "3D: encoder (LoRA), all patients".
    parent : str
    data_sets : sequence of str
        Trained on.
    """
    tested = result[result["n"] > 0]
    if tested.empty:
        return "No arm could be compared with direct application."
    where = f"With {label(parent)} on {' and '.join(map(label, data_sets))}"
    sentences = []
    for task, rows in tested.groupby(tested["comparison"].str.split(": ").str[0], sort=False):
        said = [f"{row.difference:+.3f} ({_reach(row)}{arms.WORDS[row.learns]})" for row in rows.itertuples()]
        many = counted(int(rows["n"].max()), "held-out patient")
        text = f"{where}, fine-tuning changed the mean IoU of {many} in {task} by {', '.join(said)}"
        sentences.append(f"{text}; after correction {_shown_as(rows)}.")
    return " ".join(sentences)


def _reach(row: Any) -> str:
    known = row.holm_low == row.holm_low
    return f"{row.holm_low:+.3f} to {row.holm_high:+.3f}; " if known else ""


def _shown_as(rows: pd.DataFrame) -> str:
    clear = rows[rows["p_holm"] < ALPHA]
    better, worse = int((clear["difference"] > 0).sum()), int((clear["difference"] < 0).sum())
    if not better and not worse:
        return "none of them is shown to be a gain or a loss"
    counts = ((better, "a gain"), (worse, "a loss"))
    return " and ".join(
        f"{number} of {len(rows)} {'is' if number == 1 else 'are'} shown to be {word}"
        for number, word in counts
        if number
    )


def what_is_forgotten(differences: pd.DataFrame, trained_on: Sequence[str]) -> str:
    """Return in a sentence how the arms change data sets that they were not trained on.

    Parameters
    ----------
    differences : DataFrame
        Of `fine_tuning.gains`.
    trained_on : sequence of str
    """
    other = differences[~differences["data_set"].isin(list(trained_on))]
    if other.empty:
        return "What is forgotten was not measured."
    means = arms.mean_gains(other, ["arm"])
    said = []
    for row in means.itertuples():
        known = f" ({row.ci_low:+.3f} to {row.ci_high:+.3f})" if row.ci_low == row.ci_low else ""
        said.append(f"{row.arm} {row.difference:+.3f}{known}")
    names = [label(name) for name in dict.fromkeys(other["data_set"])]
    many = counted(len(other[["data_set", "patient_id"]].drop_duplicates()), "patient")
    reach = "95 % intervals, not corrected for each other"
    if means["ci_low"].isna().all():
        reach = "too few patients for an interval"
    return (
        f"On data that it was not trained on ({', '.join(names)}; {many}) the mean IoU changes by: "
        f"{'; '.join(said)} ({reach})."
    )


def split_lines(jobs: Sequence[Job]) -> pd.DataFrame:
    """Return who is trained on and who is measured on, a line per training, patient and role.

    The `column` counts patients in the order in which they come into the training, held-out ones last.
    """
    first = {job.patients: job for job in jobs if job.repeat == 0}
    order = [patient for job in first.values() for patient in job.trained_on]
    order += [case.patient for job in jobs for case in job.held_out]
    place = {patient: number for number, patient in enumerate(dict.fromkeys(order))}
    lines = []
    for job in {(j.fold, j.repeat, j.patients): j for j in jobs}.values():
        said = {"fold": job.fold, "repeat": job.repeat, "patients": str(job.patients)}
        roles = dict.fromkeys(job.trained_on, "trained on")
        roles |= dict.fromkeys((case.patient for case in job.held_out), "measured on")
        lines += [
            said | {"patient": "/".join(who), "role": roles[who]} for who in sorted(roles, key=place.get)
        ]
    table = pd.DataFrame(lines)
    columns = {"/".join(who): number for who, number in place.items()}
    return table.assign(column=table["patient"].map(columns))


def train_study(path: Path, overrides: Mapping[str, Any] | None = None) -> int:
    """Train the checkpoints of a study without its notebooks, saying how far it is; `run` then finds them.

    Parameters
    ----------
    path : Path
        The study's YAML file.
    overrides : mapping
        Parameters that replace those of the file.

    Returns
    -------
    int
        How many checkpoints failed.

    Raises
    ------
    StudyError
        If the study does not fine-tune, or no case is prepared.
    """
    from medsam_nb.finetuning import jobs as on_disk

    path = find_study(path)
    if NOTEBOOK not in load_study(path).notebooks:
        raise StudyError(path, f"does not run {NOTEBOOK}.", f"Add it under `notebooks`: {NOTEBOOK}: {{}}.")
    path, study, chosen = opened_study(path, overrides, [NOTEBOOK])
    claim(run_folder(study), path)
    given = defaults(NOTEBOOK) | chosen[NOTEBOOK]
    run = open_run(NOTEBOOK, *(given[n] for n in ("run_dir", "manifest", "extra_manifest", "weights_dir")))
    places = {name: given[name] for name in ("prepared_dir", "weights_dir", "device", "training_slices")}
    planned = {name: given[name] for name in PLANNED}
    jobs = plan_jobs(run, given["models"][0], given["data_sets"], **places, **planned)
    total, failed, ended = len({job.name for job in jobs}), 0, 0
    say(f"{counted(total, 'checkpoint')} of {counted(given['training_slices'], 'slice')} each")
    where = run.root / given["weights_dir"]
    machines = {name: given[name] for name in ("workers", "device", "cluster")}
    for found in on_disk.train_all(jobs, where, **machines):
        steps = found.job.settings.steps
        finished = found.error or found.steps >= steps
        ended, failed = ended + bool(finished), failed + bool(found.error)
        state = f"failed ({found.error})" if found.error else f"{found.steps} of {steps} steps"
        say(f"[{ended}/{total}] {found.job.name}: {state}")
    say(f"{total - failed} of {total} checkpoints and their rows are in {where / FOLDER}")
    return failed
