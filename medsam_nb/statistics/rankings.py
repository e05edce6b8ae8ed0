"""More than two designs at once: Friedman's test with critical differences, and a mixed model."""

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats
from statsmodels.formula.api import mixedlm

from medsam_nb.errors import InputError
from medsam_nb.protocol.designs import DESIGN_FACTORS
from medsam_nb.statistics.inference import ALPHA, FEWEST_DATA_SETS, OTHERS, THESE
from medsam_nb.statistics.pooling import case_means, patient_means

DESIGN = list(DESIGN_FACTORS)


@dataclass(frozen=True, eq=False)
class Ranking:
    """Mean ranks of designs over patients, and what tells them apart.

    Attributes
    ----------
    ranks : DataFrame
        Columns `design`, `mean_rank` (1 is best), `mean`; sorted by rank.
    n_cases : int
        Cases that have every design; the others are left out.
    n_left_out : int
    statistic, p : float
        Friedman's chi-square; NaN for fewer than three designs or two cases.
    critical_difference : float
        Nemenyi's: mean ranks nearer than this are not told apart at the level of 5 %.
    note : str
    """

    ranks: pd.DataFrame
    n_cases: int
    n_left_out: int
    statistic: float
    p: float
    critical_difference: float
    note: str


def rank_designs(table: pd.DataFrame, by: list[str] | None = None, task: str = "3d") -> Ranking:
    """Rank designs within every patient and test whether the mean ranks differ.

    Parameters
    ----------
    table : DataFrame
        Rows of one model.
    by : list of str
        What makes a design; by default the four factors of a 3D design. Other factors are averaged
        over.
    task : {"2d", "3d"}

    Notes
    -----
    The critical difference is q(k) sqrt(k (k + 1) / (6 n)) (Demsar 2006), q from the studentised
    range with infinite degrees of freedom, divided by sqrt(2). It takes patients as independent: it speaks of
    these data sets.
    """
    by = DESIGN if by is None else by
    rows = table[table["task"] == task]
    means = patient_means(case_means(rows, by), by)
    if means.empty:
        empty = pd.DataFrame(columns=["design", "mean_rank", "mean"])
        return Ranking(empty, 0, 0, float("nan"), float("nan"), float("nan"), f"no {task} rows")
    means["design"] = means[by].astype(str).agg("/".join, axis=1)
    wide = means.pivot(index=["data_set", "patient_id"], columns="design", values="value")
    complete = wide.dropna()
    n, k = complete.shape
    ranks = complete.round(12).rank(axis=1, ascending=False)
    found = pd.DataFrame({"mean_rank": ranks.mean(), "mean": complete.mean()}).rename_axis("design")
    found = found.sort_values(["mean_rank", "design"]).reset_index()
    statistic = p = difference = float("nan")
    note = f"{len(wide) - n} cases lack a design" if n < len(wide) else ""
    if k < 3 or n < 2:
        reason = "fewer than three designs" if k < 3 else "fewer than two complete cases"
        note = "; ".join(filter(None, [note, f"not tested: {reason}"]))
    else:
        if (ranks.nunique(axis=1) > 1).any():
            statistic, p = map(float, scipy_stats.friedmanchisquare(*complete.round(12).to_numpy().T))
        else:
            statistic, p, note = 0.0, 1.0, "all designs are equal in every case"
        q = scipy_stats.studentized_range.ppf(1 - ALPHA, k, np.inf) / np.sqrt(2)
        difference = float(q * np.sqrt(k * (k + 1) / (6 * n)))
    return Ranking(found, n, len(wide) - n, statistic, p, difference, note)


def alike(ranking: Ranking) -> list[tuple[int, int]]:
    """Return first and last position of each longest run of designs that are not told apart."""
    ranks = ranking.ranks["mean_rank"].to_numpy(float)
    runs: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        near = np.flatnonzero(ranks - ranks[first] <= ranking.critical_difference)
        last = int(near.max()) if len(near) else first
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs


def resolution(ranking: Ranking) -> str:
    """Return in a sentence how far apart mean ranks must be to count as different, and whether any are."""
    ranks = ranking.ranks["mean_rank"].to_numpy(float)
    if not len(ranks) or not np.isfinite(ranking.critical_difference):
        return f"Ranks are not tested: {ranking.note or 'nothing to rank'}."
    worse = int((ranks - ranks[0] > ranking.critical_difference).sum())
    return (
        f"With {len(ranks)} designs and {ranking.n_cases} cases, mean ranks (1 to {len(ranks)}) must differ "
        f"by {ranking.critical_difference:.1f} to be told apart; {worse} of {len(ranks) - 1} designs "
        "are told apart from the best."
    )


def mixed_model(table: pd.DataFrame, factor: str, task: str = "3d") -> pd.DataFrame:
    """Fit a linear mixed model as a check: levels as fixed effect, patients nested in data sets.

    From `FEWEST_DATA_SETS` data sets on the effect of a level may differ from data set to data set (a
    variance component of data set and level), and limits and p come from Student's t with one degree of
    freedom less than there are data sets. With fewer this cannot be estimated: the model then speaks of these
    data sets, with n - 1 degrees of freedom for n patients, and says so.

    Parameters
    ----------
    table : DataFrame
        Rows of one model (or of two where the factor is "model").
    factor : str
        Column whose levels are compared; the first level in alphabetical order is the reference.
        Other factors are averaged over, within a patient.

    Returns
    -------
    DataFrame
        One row per level but the reference: `level`, `reference`, `estimate`, `ci_low`, `ci_high`,
        `p`, `degrees_of_freedom`, `n_patients`, `n_data_sets`, `generalises_to`, `converged`, `note`. Where
        the fit fails or a variance is at its boundary, `note` says so, and `converged` whether to trust the
        row.
    """
    means = patient_means(case_means(table[table["task"] == task], [factor]), [factor])
    levels = sorted(means[factor].dropna().unique())
    n, sets = len(means.groupby(["data_set", "patient_id"])), means["data_set"].nunique()
    columns = ["level", "reference", "estimate", "ci_low", "ci_high", "p", "degrees_of_freedom", "n_patients"]
    columns += ["n_data_sets", "generalises_to", "converged", "note"]
    if len(levels) < 2 or n < 3:
        return pd.DataFrame(columns=columns)
    data = pd.DataFrame(
        {
            "value": means["value"].astype(float),
            "level": pd.Categorical(means[factor].astype(str), categories=levels),
            "data_set": means["data_set"].astype(str),
            "patient": (means["data_set"] + "/" + means["patient_id"]).astype(str),
        }
    )
    others = sets >= FEWEST_DATA_SETS
    freedom = sets - 1 if others else n - 1
    # with one data set there is no variance between sets to estimate: patients are the groups
    groups, inner = ("data_set", {"patient": "0 + C(patient)"}) if sets > 1 else ("patient", None)
    if others:
        inner = inner | {"level": "0 + C(level)"}
    row = {"degrees_of_freedom": freedom, "n_patients": n, "n_data_sets": sets}
    row["generalises_to"] = OTHERS if others else THESE
    notes: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            fit = mixedlm("value ~ level", data, groups=groups, vc_formula=inner, re_formula="1").fit()
        notes += sorted({str(warning.message).splitlines()[0][:90] for warning in seen})
    except (np.linalg.LinAlgError, ValueError) as error:
        row |= dict.fromkeys(columns[2:6], float("nan")) | {"converged": False, "note": f"no fit: {error}"}
        return pd.DataFrame(
            [{"level": x, "reference": levels[0], **row} for x in levels[1:]], columns=columns
        )
    found = []
    for level in levels[1:]:
        name = f"level[T.{level}]"
        if name not in fit.params:
            raise InputError(factor, f"the level {level!r} has no estimate.", "Check the column's values.")
        estimate, error = float(fit.params[name]), float(fit.bse[name])
        reach = scipy_stats.t.ppf(1 - ALPHA / 2, freedom) * error
        numbers = {"estimate": estimate, "ci_low": estimate - reach, "ci_high": estimate + reach}
        numbers["p"] = (
            float(2 * scipy_stats.t.sf(abs(estimate / error), freedom)) if error > 0 else float("nan")
        )
        row |= numbers | {"converged": bool(fit.converged), "note": "; ".join(notes)}
        found.append({"level": level, "reference": levels[0], **row})
    return pd.DataFrame(found, columns=columns)


def designs_by_mean(table: pd.DataFrame) -> pd.DataFrame:
    """Return every design of every model with its mean IoU (data sets of equal weight), best first.

    Returns
    -------
    DataFrame
        Columns `model`, the four factors, "mean IoU", "SD over patients", "patients".
    """
    cells = ["model", *DESIGN]
    means = patient_means(case_means(table[table["task"] == "3d"], by=cells), cells)
    of_sets = means.groupby([*cells, "data_set"])["value"].mean().groupby(cells).mean().rename("mean IoU")
    spread = means.groupby(cells)["value"].agg(["std", "size"])
    ranked = pd.concat([of_sets, spread], axis=1).sort_values("mean IoU", ascending=False)
    return ranked.reset_index().rename(columns={"std": "SD over patients", "size": "patients"})


def mixed_models(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mixed model of every factor of the designs, one below the other, with a column `factor`."""
    fits = [mixed_model(table, factor).assign(factor=factor) for factor in DESIGN]
    return pd.concat([fit for fit in fits if len(fit)] or fits[:1], ignore_index=True)
