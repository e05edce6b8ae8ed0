"""What was found on depth, modality and variation, in sentences: computed from tables, for notebook 15."""

from collections.abc import Mapping

import pandas as pd

from medsam_nb.figures.words import counted, label
from medsam_nb.statistics.change_point import ChangePoint
from medsam_nb.workbook.findings import where_loss_begins


def _said(row) -> str:
    clear = row.holm_low > 0 or row.holm_high < 0
    interval = f"{row.holm_low:+.3f} to {row.holm_high:+.3f}"
    return f"{label(row.comparison)} {row.difference:+.3f} ({interval}{'' if clear else ', holds 0'})"


def depth_told_apart(result: pd.DataFrame) -> str:
    """Return what more slices, longer objects, wider distances and cutting out change, a sentence per family.

    Parameters
    ----------
    result : DataFrame
        Of `depth.contrasts` of `depth.depth_pairs`.
    """
    tested = result[result["p_holm"].notna()]
    if tested.empty:
        return "No contrast of depth could be tested."
    said = []
    for family, rows in tested.groupby("family", sort=False):
        if rows["difference"].eq(0).all():
            said.append(f"{family}: no difference at all, in any of {counted(len(rows), 'comparison')}")
        else:
            said.append(f"{family}: {'; '.join(map(_said, rows.itertuples()))}")
    return f"IoU of propagated slices, mean paired differences. {'. '.join(map(_sentence, said))}."


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def where_losses_begin(found: Mapping[float, ChangePoint]) -> str:
    """Return where the loss begins for each distance between slices (mm)."""
    return " ".join(f"Slices {mm:g} mm apart: {where_loss_begins(one)}" for mm, one in found.items())


def modality_losses(result: pd.DataFrame) -> str:
    """Return how much more or less is lost in each modality than in the reference, on the same anatomy."""
    tested = result[result["p_holm"].notna()]
    if tested.empty:
        return "No modality could be compared with another on the same anatomy."
    said = "; ".join(map(_said, tested.itertuples()))
    return f"On the same anatomy, what is lost between prompted and propagated slices differs: {said}."


def loss_explained(found: pd.DataFrame, words: Mapping[str, str]) -> str:
    """Return which kinds of variation explain the loss, and how much of it.

    Parameters
    ----------
    found : DataFrame
        Of `explained.explained`.
    words : mapping of str to str
        How predictors are printed.
    """
    fitted = found.dropna(subset=["slope"])
    if fitted.empty:
        return f"What explains the loss cannot be said: {'; '.join(found['note'].dropna().unique())}."
    clear = fitted[(fitted["slope_low"] > 0) | (fitted["slope_high"] < 0)]
    ranked = clear.sort_values("partial_r2", ascending=False)
    said = [
        f"{words.get(row.predictor, label(row.predictor))}, {'more' if row.slope > 0 else 'less'} loss with "
        f"more of it, partial R squared {row.partial_r2:.3f} ({row.r2_low:.3f} to {row.r2_high:.3f})"
        for row in ranked.itertuples()
    ]
    start = f"In a mixed model of {counted(int(fitted['n_rows'].max()), 'slice')} of "
    start += counted(int(fitted["n_patients"].max()), "patient")
    if not said:
        return f"{start} no kind of variation is shown to explain the loss."
    return f"{start} the loss goes with: {'; '.join(said)}."
