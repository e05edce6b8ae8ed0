"""More than two designs at once: Friedman's test with Nemenyi's critical differences.

Blocks are what the inference takes as drawn (`inference`): data sets from six on, each with the means over
its patients, as in Demsar (2006); below, the patients within the data sets at hand.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from medsam_nb.protocol.designs import DESIGN_FACTORS
from medsam_nb.statistics.inference import ALPHA, FEWEST_DATA_SETS, GENERAL
from medsam_nb.statistics.mixed import mixed_models
from medsam_nb.statistics.paired import summarise
from medsam_nb.statistics.pooling import case_means, patient_means, unit_noun

__all__ = ["DESIGN", "Ranking", "alike", "designs_by_mean", "mixed_models", "rank_designs", "resolution"]
DESIGN = list(DESIGN_FACTORS)


@dataclass(frozen=True, eq=False)
class Ranking:
    """Mean ranks of designs over blocks, and what tells them apart.

    Attributes
    ----------
    ranks : DataFrame
        Columns `design`, `mean_rank` (1 is best), `mean` (data sets weighing alike); sorted by rank.
    n_blocks : int
        Blocks in which designs were ranked.
    block : {"data set", "patient", "case"}
        What a block is.
    n_patients, n_data_sets : int
        That have every design; the others are left out.
    n_left_out : int
        Patients that lack a design.
    statistic, p : float
        Friedman's chi-square; NaN for fewer than three designs or two blocks.
    critical_difference : float
        Nemenyi's: mean ranks nearer than this are not told apart at the level of 5 %.
    generalises_to : str
        Of whom the test speaks.
    note : str
    """

    ranks: pd.DataFrame
    n_blocks: int
    block: str
    n_patients: int
    n_data_sets: int
    n_left_out: int
    statistic: float
    p: float
    critical_difference: float
    generalises_to: str
    note: str


def rank_designs(
    table: pd.DataFrame, by: list[str] | None = None, task: str = "3d", metric: str = "iou"
) -> Ranking:
    """Rank designs within every block and test whether the mean ranks differ.

    Parameters
    ----------
    table : DataFrame
        Rows of one model.
    by : list of str
        What makes a design; by default the four factors of a 3D design. Other factors are averaged
        over.
    task : {"2d", "3d"}
    metric : str
        In which more is better.

    Notes
    -----
    The critical difference is q(k) sqrt(k (k + 1) / (6 n)) (Demsar 2006), q from the studentised
    range with infinite degrees of freedom, divided by sqrt(2).
    """
    by = DESIGN if by is None else by
    cases = case_means(table[table["task"] == task], by, metric)
    noun = unit_noun(cases)
    if cases.empty:
        empty = pd.DataFrame(columns=["design", "mean_rank", "mean"])
        missing = float("nan")
        return Ranking(empty, 0, noun, 0, 0, 0, missing, missing, missing, "", f"no {task} rows")
    means = patient_means(cases, by)
    means["design"] = means[by].astype(str).agg("/".join, axis=1)
    wide = means.pivot(index=["data_set", "patient_id"], columns="design", values="value")
    complete = wide.dropna()
    of_sets = complete.groupby(level="data_set").mean()
    general = len(of_sets) >= FEWEST_DATA_SETS
    blocks = of_sets if general else complete
    n, k = blocks.shape
    ranks = blocks.round(12).rank(axis=1, ascending=False)
    found = pd.DataFrame({"mean_rank": ranks.mean(), "mean": of_sets.mean()}).rename_axis("design")
    found = found.sort_values(["mean_rank", "design"]).reset_index()
    statistic = p = difference = float("nan")
    left_out = len(wide) - len(complete)
    note = f"{left_out} {noun}s lack a design" if left_out else ""
    if k < 3 or n < 2:
        reason = "fewer than three designs" if k < 3 else f"fewer than two complete {noun}s"
        note = "; ".join(filter(None, [note, f"not tested: {reason}"]))
    else:
        if (ranks.nunique(axis=1) > 1).any():
            statistic, p = map(float, scipy_stats.friedmanchisquare(*blocks.round(12).to_numpy().T))
        else:
            statistic, p, note = 0.0, 1.0, f"all designs are equal in every {'data set' if general else noun}"
        q = scipy_stats.studentized_range.ppf(1 - ALPHA, k, np.inf) / np.sqrt(2)
        difference = float(q * np.sqrt(k * (k + 1) / (6 * n)))
    within = "this data set" if len(of_sets) == 1 else "these data sets"
    return Ranking(
        ranks=found,
        n_blocks=n,
        block="data set" if general else noun,
        n_patients=len(complete),
        n_data_sets=len(of_sets),
        n_left_out=left_out,
        statistic=statistic,
        p=p,
        critical_difference=difference,
        generalises_to=GENERAL if general else within,
        note=note,
    )


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
    blocks = f"{ranking.n_blocks} {ranking.block}" + "s" * (ranking.n_blocks != 1)
    return (
        f"With {len(ranks)} designs and {blocks}, mean ranks (1 to {len(ranks)}) must differ "
        f"by {ranking.critical_difference:.1f} to be told apart; {worse} of {len(ranks) - 1} designs "
        f"are told apart from the best in {ranking.generalises_to}."
    )


def designs_by_mean(table: pd.DataFrame) -> pd.DataFrame:
    """Return every design of every model with its mean IoU (data sets of equal weight), best first.

    Returns
    -------
    DataFrame
        Columns `model`, the four factors, "mean IoU" with `ci_low` and `ci_high` (`paired.summarise`),
        "SD over patients", "patients".
    """
    cells = ["model", *DESIGN]
    cases = case_means(table[table["task"] == "3d"], by=cells)
    spread = patient_means(cases, cells).groupby(cells)["value"].std().rename("SD over patients")
    found = summarise(cases, cells).join(spread, on=cells).sort_values("mean", ascending=False)
    found = found.rename(columns={"mean": "mean IoU", "n_patients": "patients"})
    columns = [*cells, "mean IoU", "ci_low", "ci_high", "SD over patients", "patients"]
    return found[columns].reset_index(drop=True)
