"""Splits of cases by patient: what was trained on a patient is never measured on that patient.

Patients are put into an order that follows from their names and a seed alone, so that a split does not
depend on the order of the cases, and a patient who is added moves no other one in that order.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from medsam_nb.errors import StudyError
from medsam_nb.protocol.seeds import derive_seed

Case, Patient = Hashable, Hashable


@dataclass(frozen=True)
class Split:
    """Cases to train on and cases to measure on, of different patients, each in the order of their names.

    Attributes
    ----------
    train, test : tuple of case
    """

    train: tuple[Case, ...]
    test: tuple[Case, ...]


def patient_order(patient_of: Mapping[Case, Patient], seed: int) -> tuple[Patient, ...]:
    """Return the patients in the order in which splits take them.

    Parameters
    ----------
    patient_of : mapping of case to patient
        Of cases of several data sets both are pairs, (data set, case) and (data set, patient): the patient
        "1" of one data set is not that of another.
    seed : int
    """
    return tuple(
        sorted(set(patient_of.values()), key=lambda one: (derive_seed(seed, "split", one), repr(one)))
    )


def _split(patient_of: Mapping[Case, Patient], tested: set[Patient]) -> Split:
    cases = sorted(patient_of, key=repr)
    return Split(
        tuple(case for case in cases if patient_of[case] not in tested),
        tuple(case for case in cases if patient_of[case] in tested),
    )


def split_by_patient(patient_of: Mapping[Case, Patient], *, test_patients: int | float, seed: int) -> Split:
    """Return cases to train on and cases to measure on.

    Parameters
    ----------
    patient_of : mapping of case to patient
        See `patient_order`.
    test_patients : int or float
        How many patients are measured on; or which share of them, rounded to a whole number of at least one.
    seed : int
        The patients who are measured on are the first of `patient_order`: of two splits with one seed the
        smaller test is a part of the larger one.

    Raises
    ------
    StudyError
        If that leaves no patient to measure on, or none to train on.

    Examples
    --------
    >>> pictures = {"1_1": "1", "1_2": "1", "2_1": "2", "3_1": "3"}
    >>> split_by_patient(pictures, test_patients=1, seed=0)
    Split(train=('1_1', '1_2', '2_1'), test=('3_1',))
    """
    order = patient_order(patient_of, seed)
    count = test_patients
    if isinstance(test_patients, float):
        count = max(1, round(test_patients * len(order))) if 0 < test_patients < 1 else 0
    if not 0 < count < len(order):
        raise StudyError(
            "split by patient",
            f"{test_patients} to measure on, of {len(order)} patient(s).",
            "Name a share between 0 and 1, or a number that leaves patients on both sides.",
        )
    return _split(patient_of, set(order[:count]))


def folds_by_patient(
    patient_of: Mapping[Case, Patient], *, folds: int | None = None, seed: int
) -> tuple[Split, ...]:
    """Return splits in which every patient is measured on once (cross-validation).

    Parameters
    ----------
    patient_of : mapping of case to patient
        See `patient_order`.
    folds : int, optional
        As many as there are patients if not given: one patient is left out at a time.
    seed : int

    Raises
    ------
    StudyError
        If there are fewer patients than folds, or fewer than two folds.
    """
    order = patient_order(patient_of, seed)
    count = len(order) if folds is None else folds
    if not 2 <= count <= len(order):
        raise StudyError(
            "folds by patient",
            f"{count} folds of {len(order)} patient(s).",
            "Take at least two folds, and no more than there are patients.",
        )
    return tuple(_split(patient_of, set(order[number::count])) for number in range(count))
