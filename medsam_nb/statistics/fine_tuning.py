"""What fine-tuning is worth: rows of many checkpoints as arms, learning curves, gains and what is forgotten.

An arm is what learns and on how many patients. Its seeds are averaged value by value before anything is
compared, as the patient is the unit and not the seed.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medsam_nb.protocol.table import KEY_COLUMNS
from medsam_nb.statistics.inference import Sample
from medsam_nb.statistics.paired import summarise
from medsam_nb.statistics.pooling import case_means, patient_means

DIRECT = "direct application"  # of the parent, as it is
WORDS = {"mask_decoder": "mask decoder", "memory": "memory modules", "lora": "encoder (LoRA)"}


def arm_name(learns: str, patients: str) -> str:
    """Return an arm in words.

    Examples
    --------
    >>> arm_name("lora", "1"), arm_name("memory", "all")
    ('encoder (LoRA), 1 patient', 'memory modules, all patients')
    """
    return f"{WORDS[learns]}, {patients} {'patient' if patients == '1' else 'patients'}"


def with_arms(jobs: pd.DataFrame) -> pd.DataFrame:
    """Return a line per checkpoint with the arm it belongs to.

    Parameters
    ----------
    jobs : DataFrame
        Columns `model`, `learns`, `patients`, `n_patients`, `repeat`; one checkpoint may serve several folds.
    """
    lines = jobs.drop_duplicates("model")
    names = [arm_name(*pair) for pair in zip(lines["learns"], lines["patients"], strict=True)]
    return lines.assign(arm=names)


def of_arms(table: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    """Return the tidy table with arms in place of models, the mean over the seeds of each.

    Parameters
    ----------
    table : DataFrame
        Tidy rows of checkpoints and of their parent, which becomes `DIRECT`.
    jobs : DataFrame
        See `with_arms`.
    """
    names = with_arms(jobs).set_index("model")["arm"]
    arms = table["model"].map(names).fillna(DIRECT).astype("string")
    rows = table.assign(model=arms, run_key=pd.NA)
    cell = [column for column in KEY_COLUMNS if column != "run_key"]
    means = rows.astype({"value": float}).groupby(cell, dropna=False, sort=False)["value"].mean()
    first = rows.drop_duplicates(cell).set_index(cell)
    return first.assign(value=means).reset_index()[list(table.columns)].astype(table.dtypes)


def learning_curves(table: pd.DataFrame, jobs: pd.DataFrame, metric: str = "iou") -> pd.DataFrame:
    """Return the mean by what learns and number of patients: over all seeds with its interval, and of each.

    Parameters
    ----------
    table, jobs : DataFrame
        As for `of_arms`; rows of one task and prompt.

    Returns
    -------
    DataFrame
        Columns `learns`, `patients`, `n_patients`, `repeat` (missing for the mean of all), `mean`,
        `ci_low`, `ci_high`; the parent has 0 patients in every curve.
    """
    arms = with_arms(jobs)
    together = summarise(case_means(of_arms(table, jobs), ["model"], metric), ["model"]).set_index("model")
    alone = patient_means(case_means(table, ["model"], metric), ["model"])
    found = []
    for learns, of_learns in arms.groupby("learns", sort=False):
        sizes = [(DIRECT, "0", 0.0)]
        sizes += [
            (arm, some["patients"].iloc[0], some["n_patients"].mean())
            for arm, some in of_learns.groupby("arm", sort=False)
        ]
        for arm, patients, many in sizes:
            if arm in together.index:
                line = {"learns": learns, "patients": patients, "n_patients": many}
                found.append(line | together.loc[arm, ["mean", "ci_low", "ci_high"]].to_dict())
        for (_, repeat), some in of_learns.groupby(["arm", "repeat"], sort=False):
            # All folds together: every patient counts once, however many a checkpoint is measured on.
            values = alone[alone["model"].isin(some["model"])].groupby("data_set")["value"].mean()
            if len(values):
                line = {"learns": learns, "patients": some["patients"].iloc[0], "repeat": repeat}
                found.append(line | {"n_patients": some["n_patients"].mean(), "mean": values.mean()})
    columns = ["learns", "patients", "n_patients", "repeat", "mean", "ci_low", "ci_high"]
    return pd.DataFrame(found, columns=columns)


def gains(rows: pd.DataFrame, arms: Sequence[str], metric: str = "iou") -> pd.DataFrame:
    """Return the paired difference of arms from the parent, a row per patient.

    Parameters
    ----------
    rows : DataFrame
        Of `of_arms`, of one task.
    arms : sequence of str

    Returns
    -------
    DataFrame
        Columns `arm`, `data_set`, `patient_id`, `difference`.
    """
    chosen = rows[rows["model"].isin([*arms, DIRECT])]
    values = patient_means(case_means(chosen, ["model"], metric), ["model"])
    wide = values.pivot_table("value", ["data_set", "patient_id"], "model")
    found = []
    for arm in arms:
        if {arm, DIRECT} <= set(wide):
            difference = (wide[arm] - wide[DIRECT]).dropna().rename("difference")
            found.append(difference.reset_index().assign(arm=arm))
    columns = ["arm", "data_set", "patient_id", "difference"]
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)


def mean_gains(differences: pd.DataFrame, by: Sequence[str] = ("arm", "data_set")) -> pd.DataFrame:
    """Return the mean of `gains` in every cell, with its 95 % interval where there are enough patients.

    Parameters
    ----------
    differences : DataFrame
        Of `gains`.
    by : sequence of str
        What tells cells apart; without the data set all of them weigh the same.

    Returns
    -------
    DataFrame
        Columns of `by`, `difference`, `ci_low`, `ci_high`, `n_patients`, `n_data_sets`.
    """
    found = []
    for key, some in differences.groupby(list(by), sort=False):
        sample = Sample(some["difference"].to_numpy(float), some["data_set"].to_numpy(str))
        low, high = sample.interval()
        line = dict(zip(by, key, strict=True)) | {"difference": sample.estimate}
        line |= {"ci_low": low, "ci_high": high, "n_patients": len(some)}
        found.append(line | {"n_data_sets": sample.n_data_sets})
    columns = [*by, "difference", "ci_low", "ci_high", "n_patients", "n_data_sets"]
    return pd.DataFrame(found, columns=columns)


def against_direct(jobs: pd.DataFrame, where: dict, label: str) -> list[dict]:
    """Return the declared comparisons of every arm with the parent, a Holm family per number of patients.

    Parameters
    ----------
    jobs : DataFrame
        See `with_arms`.
    where : dict
        Rows of the comparison, such as {"task": "3d"}.
    label : str
        Before the names, such as "3D".
    """
    arms = with_arms(jobs).drop_duplicates("arm")
    return [
        {
            "name": f"{label}: {arm}",
            "family": f"{label}, {patients} patients",
            "where": where,
            "vary": "model",
            "a": arm,
            "b": DIRECT,
        }
        for arm, patients in zip(arms["arm"], arms["patients"], strict=True)
    ]


def largest(jobs: pd.DataFrame) -> Sequence[str]:
    """Return the arms with the most training patients, one for each of what learns."""
    arms = with_arms(jobs).drop_duplicates("arm")
    most = arms.groupby("learns")["n_patients"].transform("max")
    return list(arms.loc[np.isclose(arms["n_patients"], most), "arm"])
