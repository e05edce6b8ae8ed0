"""What a study would say if only some slices had been annotated.

A finished table of slices is thinned: values remain where truth would have been drawn. Predictions are
those of the whole study, so that only the measuring becomes sparse, not the prompting; the prompted slice
too counts only where it is one of the annotated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medsam_nb.errors import StudyError
from medsam_nb.protocol.seeds import generator
from medsam_nb.protocol.volume_changes import ordinal
from medsam_nb.statistics.declarations import Comparison, declare
from medsam_nb.statistics.inference import ALPHA, Sample
from medsam_nb.statistics.paired import compare_pairs
from medsam_nb.statistics.pairing import paired_values
from medsam_nb.statistics.pooling import check_table

# The claim that is asked again: the study keeps the first mask.
FIRST_NOT_WORSE = {
    "name": "first mask not worse", "vary": "mask_choice", "a": "first_mask", "b": "most_confident_mask",
    "test": "not_worse", "margin": 0.05,
}  # fmt: skip


@dataclass(frozen=True)
class Annotation:
    """Which slices of a case have truth.

    Attributes
    ----------
    every : int
        Every n-th slice of the volume, the first of them by chance; 1 is all.
    slices : int
        If not 0, so many slices of those that hold an object, by chance, and `every` does not count.
    largest : bool
        Not by chance, but those where an object is largest, each object on its own.
    """

    every: int = 1
    slices: int = 0
    largest: bool = False

    def __post_init__(self) -> None:
        if self.every < 1 or self.slices < (1 if self.largest else 0):
            raise StudyError("sparse truth", f"is {self}.", "Give `every` from 1, `slices` from 0.")

    @property
    def is_full(self) -> bool:
        """Whether every slice has truth."""
        return self.slices == 0 and self.every == 1

    @property
    def by_chance(self) -> bool:
        """Whether one draw differs from the next."""
        return not (self.is_full or self.largest)

    @property
    def name(self) -> str:
        """What tables call it.

        Examples
        --------
        >>> [Annotation(1).name, Annotation(2).name, Annotation(10).name, Annotation(slices=1).name]
        ['all slices', 'every 2nd slice', 'every 10th slice', '1 random slice']
        >>> Annotation(slices=1, largest=True).name
        'largest slice'
        """
        if self.largest:
            return "largest slice" if self.slices == 1 else f"{self.slices} largest slices"
        if self.slices:
            return f"{self.slices} random slice{'' if self.slices == 1 else 's'}"
        return "all slices" if self.is_full else f"every {ordinal(self.every)} slice"


def annotated(table: pd.DataFrame, annotation: Annotation, *parts: object) -> pd.DataFrame:
    """Return the rows of slices that have truth.

    Parameters
    ----------
    table : DataFrame
        The tidy table of slices.
    annotation : Annotation
    *parts : object
        What identifies the draw, such as a seed and a number. Every case draws on its own.
    """
    table = table[table["slice_index"].notna()]
    if annotation.is_full or table.empty:
        return table
    if annotation.largest:
        sizes = table.drop_duplicates(["data_set", "case_id", "object", "slice_index"])
        sizes = sizes.sort_values(["truth_px", "slice_index"], ascending=[False, True])
        place = ["data_set", "case_id", "object", "slice_index"]
        return table.merge(sizes.groupby(place[:3]).head(annotation.slices)[place], on=place)
    kept = []
    for (data_set, case_id), rows in table.groupby(["data_set", "case_id"], sort=False):
        draw = generator("sparse truth", *parts, annotation.name, data_set, case_id)
        index = rows["slice_index"].astype(int)
        if annotation.slices:
            held = np.unique(index)
            chosen = draw.choice(held, min(annotation.slices, len(held)), replace=False)
            kept.append(rows[index.isin(chosen)])
        else:
            kept.append(rows[index % annotation.every == draw.integers(annotation.every)])
    return pd.concat(kept)


def sparse_estimates(
    table: pd.DataFrame,
    annotations: Sequence[Annotation],
    *,
    seed: int = 0,
    draws: int = 20,
    claim: Mapping = FIRST_NOT_WORSE,
) -> pd.DataFrame:
    """Return what the study would have found with each annotation, drawn several times.

    Parameters
    ----------
    table : DataFrame
        Rows of slices of one model and one task; other factors than the claim's are averaged over.
    annotations : sequence of Annotation
        All slices (drawn once) should be among them.
    seed : int
    draws : int
    claim : mapping
        A comparison (`declarations.declare`), made anew on every draw; the estimate is that of its side a.

    Returns
    -------
    DataFrame
        One row per annotation and draw: `annotation`, `draw`, `estimate`, `ci_low`, `ci_high` (mean over
        patients, data sets weighing alike), `n_patients`, `n_slices` (annotated, over all cases),
        `difference`, `difference_low` (of the claim, lower limit), `holds` (whether the claim is shown).
    """
    table, comparison, found = check_table(table), declare(claim), []
    for annotation in annotations:
        for number in range(draws if annotation.by_chance else 1):
            rows = annotated(table, annotation, seed, number)
            found.append({"annotation": annotation.name, "draw": number} | _found(rows, comparison))
    return pd.DataFrame(found)


def _found(rows: pd.DataFrame, comparison: Comparison) -> dict:
    values = paired_values(rows, comparison).values
    sample = Sample(values["a"].to_numpy(float), values["data_set"].to_numpy(str))
    low, high = sample.interval()
    tested = compare_pairs(values, comparison)
    slices = rows[["data_set", "case_id", "slice_index"]].drop_duplicates()
    return {
        "estimate": sample.estimate,
        "ci_low": low,
        "ci_high": high,
        "n_patients": len(values),
        "n_slices": len(slices),
        "difference": tested["difference"],
        "difference_low": tested["ci_low"],
        "holds": bool(tested["p"] < ALPHA and tested["ci_low"] > -comparison.margin),
    }


def sparse_summary(estimates: pd.DataFrame) -> pd.DataFrame:
    """Return how wrong a study with sparse truth is, against the one with all of it.

    Parameters
    ----------
    estimates : DataFrame
        Of `sparse_estimates`, that of all slices among them.

    Returns
    -------
    DataFrame
        One row per annotation: `annotation`, `n_slices` (mean), `patients_lost` (mean), `bias` (mean error
        of the estimate), `spread` (its standard deviation over draws), `width_ratio` (of the intervals),
        `covers` (share of draws whose interval holds the full estimate), `difference_bias`,
        `difference_spread`, `holds` (share of draws in which the claim is shown), `draws`.
    """
    full = estimates[estimates["annotation"] == Annotation().name].iloc[0]
    found = []
    for name, rows in estimates.groupby("annotation", sort=False):
        error, width = rows["estimate"] - full["estimate"], rows["ci_high"] - rows["ci_low"]
        within = (rows["ci_low"] <= full["estimate"]) & (full["estimate"] <= rows["ci_high"])
        away = rows["difference"] - full["difference"]
        found.append(
            {
                "annotation": name,
                "n_slices": rows["n_slices"].mean(),
                "patients_lost": full["n_patients"] - rows["n_patients"].mean(),
                "bias": error.mean(),
                "spread": error.std(ddof=0),
                "width_ratio": width.mean() / (full["ci_high"] - full["ci_low"]),
                "covers": within.mean(),
                "difference_bias": away.mean(),
                "difference_spread": away.std(ddof=0),
                "holds": rows["holds"].mean(),
                "draws": len(rows),
            }
        )
    return pd.DataFrame(found)
