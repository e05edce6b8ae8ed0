"""Splits by patient: no patient on both sides, whatever the order of the cases, and every patient once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsam_nb.errors import StudyError
from medsam_nb.protocol.splits import folds_by_patient, patient_order, split_by_patient

CASES = st.dictionaries(
    st.text(max_size=4), st.text("abcdef", min_size=1, max_size=1), min_size=2, max_size=30
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(patient_of=CASES, share=st.floats(0.05, 0.95), seed=st.integers(0, 5), shuffle=st.randoms())
def test_no_patient_is_on_both_sides(patient_of, share, seed, shuffle):
    patients = set(patient_of.values())
    if len(patients) < 2:
        return
    if round(share * len(patients)) >= len(patients):
        with pytest.raises(StudyError):
            split_by_patient(patient_of, test_patients=share, seed=seed)
        return
    split = split_by_patient(patient_of, test_patients=share, seed=seed)
    train, test = ({patient_of[case] for case in side} for side in (split.train, split.test))
    assert train and test and not train & test
    assert sorted(split.train + split.test) == sorted(patient_of)
    assert len(test) == max(1, round(share * len(patients)))
    turned = list(patient_of.items())
    shuffle.shuffle(turned)
    assert split_by_patient(dict(turned), test_patients=share, seed=seed) == split
    folds = folds_by_patient(patient_of, seed=seed)
    assert len(folds) == len(patients)
    for fold in folds:
        assert not {patient_of[c] for c in fold.train} & {patient_of[c] for c in fold.test}
    assert sorted(case for fold in folds for case in fold.test) == sorted(patient_of)


def test_larger_tests_hold_smaller_ones_and_new_patients_move_no_other():
    patient_of = {
        ("set", f"{patient}_{picture}"): ("set", patient) for patient in range(9) for picture in range(3)
    }
    tests = [set(split_by_patient(patient_of, test_patients=n, seed=3).test) for n in range(1, 9)]
    assert all(small < large for small, large in zip(tests, tests[1:], strict=False))
    assert [len(test) for test in tests] == [3 * n for n in range(1, 9)]
    before = patient_order(patient_of, 3)
    after = patient_order(patient_of | {("set", "new"): ("set", "new")}, 3)
    assert [one for one in after if one in before] == list(before)
    assert before != patient_order(patient_of, 4)
    assert {len(fold.test) for fold in folds_by_patient(patient_of, folds=3, seed=3)} == {9}


@pytest.mark.parametrize("wrong", [0, 2, 5, -1, 0.0, 1.0, 1.5])
def test_what_leaves_a_side_empty_is_refused(wrong):
    patient_of = {"a1": "a", "a2": "a", "b": "b"}
    with pytest.raises(StudyError, match="of 2 patient"):
        split_by_patient(patient_of, test_patients=wrong, seed=0)
    with pytest.raises(StudyError, match="3 folds of 2"):
        folds_by_patient(patient_of, folds=3, seed=0)
    with pytest.raises(StudyError, match="1 folds of 1"):
        folds_by_patient({"a": "a"}, seed=0)
