"""What is fine-tuned on whom: jobs of all arms, split by patient, each named by what decides its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pandas as pd

from medsam_nb.data.prepared import read_record
from medsam_nb.errors import InputError, StudyError
from medsam_nb.finetuning.settings import Settings
from medsam_nb.manifest.adaptation import FineTuning
from medsam_nb.manifest.fine_tuned import FOLDER
from medsam_nb.manifest.rows import Checkpoint
from medsam_nb.protocol.seeds import derive_seed
from medsam_nb.protocol.splits import Split, folds_by_patient, patient_order, split_by_patient
from medsam_nb.provenance import COMPUTING_PACKAGES, as_json, code_sha256, package_versions

ALL = "all"  # training patients: everyone who is not held out
CODE = ("protocol", "data", "models", "finetuning")  # folders whose code decides trained weights
SEEDS = 2**63


@dataclass(frozen=True)
class PreparedCase:
    """A prepared case, as far as planning needs it."""

    folder: Path
    data_set: str
    case_id: str
    patient_id: str
    data_sha256: str

    @property
    def patient(self) -> tuple[str, str]:
        """Data set and patient: the patient "1" of one data set is not that of another."""
        return self.data_set, self.patient_id


@dataclass(frozen=True)
class Job:
    """One checkpoint to be made.

    Attributes
    ----------
    parent : Checkpoint
    parent_sha256 : str
    settings : Settings
    objects : tuple of str
        Names of the objects that are trained on; all if empty.
    cases, held_out : tuple of PreparedCase
        Of different patients: to train on, and to measure on.
    patients : int or "all"
        How many patients it was to be trained on.
    repeat, fold : int
        Which of the seeds, and which of the splits.
    split : str
        In words, how the patients were chosen.
    device_facts : str
        JSON: where it is trained, as far as that decides how it is rounded.
    """

    parent: Checkpoint
    parent_sha256: str
    settings: Settings
    objects: tuple[str, ...]
    cases: tuple[PreparedCase, ...]
    held_out: tuple[PreparedCase, ...]
    patients: int | str
    repeat: int = 0
    fold: int = 0
    split: str = ""
    device_facts: str = "{}"

    @property
    def trained_on(self) -> tuple[tuple[str, str], ...]:
        """The training patients, each once."""
        return tuple(dict.fromkeys(case.patient for case in self.cases))

    @property
    def digest(self) -> str:
        """Of all that decides the weights."""
        decides = {
            "parent": self.parent_sha256,
            "network": self.parent.model_dump(include={"family", "config", "image_size"}),
            "settings": self.settings.model_dump(),
            "objects": sorted(self.objects),
            "cases": [(*case.patient, case.case_id, case.data_sha256) for case in self.cases],
            "device": self.device_facts,
            "code": code_sha256(*CODE),
            "packages": package_versions(COMPUTING_PACKAGES),
        }
        return sha256(as_json(decides).encode()).hexdigest()

    @property
    def name(self) -> str:
        """Of the checkpoint, as a study names it under `models`."""
        data_sets = list(dict.fromkeys(case.data_set for case in self.cases))
        where = data_sets[0] if len(data_sets) == 1 else f"{len(data_sets)}_data_sets"
        many = f"{len(self.trained_on)}p"
        return f"{self.parent.name[:24]}-{where[:32]}-{self.settings.learns}-{many}-{self.digest[:8]}"

    def row(self, sha256: str, size_bytes: int) -> Checkpoint:
        """Return the row of the finished checkpoint."""
        before = self.parent.fine_tuned
        made = FineTuning(
            parent=self.parent.name,
            parent_sha256=self.parent_sha256,
            patients=tuple(dict.fromkeys((*(before.patients if before else ()), *self.trained_on))),
            cases_sha256=(*(before.cases_sha256 if before else ()), *(c.data_sha256 for c in self.cases)),
            objects=self.objects,
            learns=self.settings.learns,
            steps=self.settings.steps,
            slices=self.settings.steps * self.settings.slices_per_step,
            learning_rate=self.settings.learning_rate,
            rank=self.settings.rank,
            seed=self.settings.seed,
            split=self.split,
            code_sha256=code_sha256(*CODE),
        )
        changes = {
            "name": self.name,
            "file": f"{FOLDER}/{self.name}.pt",
            "url": None,
            "sha256": sha256,
            "size_bytes": size_bytes,
            "embedded": False,
            "note": f"{self.parent.name}, fine-tuned",
            "fine_tuned": made,
        }
        return self.parent.model_copy(update=changes)


def usable_cases(folders: Sequence[Path], objects: Sequence[str]) -> list[PreparedCase]:
    """Return the prepared cases that hold one of the objects (any, if none is named).

    Raises
    ------
    InputError
        If a folder holds no prepared case.
    """
    found = []
    for folder in folders:
        record = read_record(folder)
        if record is None:
            raise InputError(folder, "is no prepared case.", "Prepare the data set again.")
        there = {line["name"] for line in json.loads(record["line"]["objects"])}
        if there & set(objects) or not objects:
            patient = record.get("patient_id") or record["case_id"]
            names = record["data_set"], record["case_id"], patient, record["data_sha256"]
            found.append(PreparedCase(Path(folder), *names))
    return found


def plan(
    parent: Checkpoint,
    parent_sha256: str,
    cases: Sequence[PreparedCase],
    *,
    objects: Sequence[str],
    learns: Sequence[str],
    training_patients: Sequence[int | str],
    held_out_patients: int,
    repeats: int,
    seed: int,
    device_facts: str = "{}",
    **settings: object,
) -> list[Job]:
    """Return a job for every arm, number of training patients, repeat and fold.

    Who is held out is the same for all arms and repeats; whom a job is trained on are the first of an order
    that is each repeat's own, so that fewer patients are always a part of more.

    Parameters
    ----------
    parent : Checkpoint
    parent_sha256 : str
    cases : sequence of PreparedCase
    objects : sequence of str
    learns : sequence of str
        The arms; see `Settings`.
    training_patients : sequence of int or "all"
        0 is the parent as it is, for which there is no job.
    held_out_patients : int
        Measured on, of all patients; 0 leaves out one patient at a time, so that each is measured once.
    repeats : int
        Seeds of every arm.
    seed : int
        Of the study.
    device_facts : str
    **settings
        Of `Settings`, the same for all.

    Raises
    ------
    StudyError
        If there are not enough patients.
    """
    by_key = {(case.data_set, case.case_id): case for case in cases}
    patient_of = {key: case.patient for key, case in by_key.items()}
    splits, words = _splits(patient_of, held_out_patients, seed)
    jobs = []
    for fold, split in enumerate(splits):
        for repeat in range(repeats):
            order = patient_order({key: patient_of[key] for key in split.train}, derive_seed(seed, repeat))
            for many in _sizes(training_patients, len(order)):
                chosen = set(order if many == ALL else order[: int(many)])
                given = {
                    "parent": parent,
                    "parent_sha256": parent_sha256,
                    "objects": tuple(objects),
                    "cases": tuple(by_key[key] for key in split.train if patient_of[key] in chosen),
                    "held_out": tuple(by_key[key] for key in split.test),
                    "patients": many,
                    "repeat": repeat,
                    "fold": fold,
                    "split": f"{words}, seed {seed}, repeat {repeat}",
                    "device_facts": device_facts,
                }
                own = derive_seed(seed, "fine-tuning", repeat) % SEEDS
                for one in learns:
                    jobs.append(Job(settings=Settings(learns=one, seed=own, **settings), **given))
    return jobs


def _splits(patient_of: Mapping, held_out: int, seed: int) -> tuple[tuple[Split, ...], str]:
    if held_out == 0:
        return folds_by_patient(patient_of, seed=seed), "one patient left out at a time"
    many = len(set(patient_of.values()))
    split = split_by_patient(patient_of, test_patients=held_out, seed=seed)
    return (split,), f"{held_out} of {many} patients held out"


def _sizes(wanted: Sequence[int | str], there: int) -> list[int | str]:
    """Return the numbers of training patients without 0, each once; "all" and its number are one."""
    for many in wanted:
        if many != ALL and int(many) > there:
            raise StudyError(
                "training_patients",
                f"{many} are wanted, but {there} are left for training.",
                f"Write up to {there}, or all; or hold out fewer.",
            )
    numbers = [many for many in wanted if many not in (0, ALL) and not (many == there and ALL in wanted)]
    return [*numbers, *([ALL] if ALL in wanted else [])]


def overview(jobs: Sequence[Job]) -> pd.DataFrame:
    """Return a line per job: what learns, on how many patients and slices, in which steps."""
    return pd.DataFrame(
        {
            "model": job.name,
            "learns": job.settings.learns,
            "patients": str(job.patients),
            "n_patients": len(job.trained_on),
            "repeat": job.repeat,
            "fold": job.fold,
            "steps": job.settings.steps,
            "slices": job.settings.steps * job.settings.slices_per_step,
            "held_out": len({case.patient for case in job.held_out}),
        }
        for job in jobs
    )
