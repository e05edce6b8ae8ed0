"""What was found about distances between slices and about sparse truth: sentences computed from tables."""

import pandas as pd

from medsam_nb.figures.words import counted
from medsam_nb.statistics.inference import ALPHA
from medsam_nb.statistics.slice_distance import DoseResponse

DOSES = {
    "step_mm": "per 10 mm more between neighbouring slices",
    "likeness": "per 0.1 by which the IoU of the truth on neighbouring slices rises",
}


def dose_said(responses: list[DoseResponse], what: str) -> str:
    """Return the slopes of one kind of change on both axes, with intervals.

    Parameters
    ----------
    responses : list of DoseResponse
    what : str
        What was done, as the beginning of a sentence, such as "Leaving out slices".
    """
    known = [r for r in responses if not r.note]
    if not known:
        return f"{what} cannot be judged: it {responses[0].note}."
    parts = [
        f"{r.slope:+.3f} IoU ({r.low:+.3f} to {r.high:+.3f}) {DOSES[r.axis]}, "
        f"which accounts for {100 * r.explained:.0f} % of the squared changes "
        f"({100 * r.explained_low:.0f} to {100 * r.explained_high:.0f} %)"
        for r in known
    ]
    text = f"{what} changes the mean IoU of the same slices by {'; by '.join(parts)}"
    units = f"{counted(known[0].n_patients, 'patient')} of {counted(known[0].n_data_sets, 'data set')}"
    return f"{text} ({units})."


def clear_changes(result: pd.DataFrame, noun: str, verb: str = "change", start: str = "Of") -> str:
    """Return which of the compared changes or repairs clearly differ from none after correction.

    Parameters
    ----------
    result : DataFrame
        Of `paired.compare`, a comparison per change, named by it.
    noun : str
        What is compared, such as "volume repair".
    verb : str
        What they do to the mean IoU.
    start : str
        How the sentence begins.
    """
    tested = result[result["p_holm"].notna()]
    if tested.empty:
        return f"No {noun} could be compared."
    clear = tested[tested["p_holm"] < ALPHA]
    said = [
        f"{row.comparison} {row.difference:+.3f} ({row.holm_low:+.3f} to {row.holm_high:+.3f})"
        for row in clear.itertuples()
    ]
    verb = f"{verb}s" if len(clear) == 1 else verb
    text = f"{start} {counted(len(tested), noun)}, after correction {len(clear)} {verb} "
    return f"{text}the mean IoU{': ' + '; '.join(said) if said else ''}."


def sparse_said(summary: pd.DataFrame, full: pd.Series, margin: float) -> str:
    """Return how far sparse truth leads a study astray, and whether the claim on masks can still be shown.

    Parameters
    ----------
    summary : DataFrame
        Of `sparse_truth.sparse_summary`; its first row is all slices.
    full : Series
        The row of `sparse_estimates` of all slices.
    margin : float
        Of the claim.
    """
    sparse = summary[summary["draws"] > 1]
    if sparse.empty:
        return "No random annotation was drawn."
    held = "is" if full["holds"] else "is not"
    text = (
        f"With truth on all slices the first mask {held} shown to be at most {margin:g} IoU worse than the "
    )
    text += f"most confident one (difference {full['difference']:+.3f}). "
    parts = [
        f"with {row.annotation} ({row.n_slices:.0f} slices in all) the mean is off by {row.bias:+.3f} on "
        f"average, with a spread of {row.spread:.3f}, its interval is {row.width_ratio:.2f} times as wide, "
        f"and the claim is shown in {row.holds * row.draws:.0f} of {counted(int(row.draws), 'draw')}"
        for row in (sparse.loc[sparse["n_slices"].idxmax()], sparse.loc[sparse["n_slices"].idxmin()])
    ]
    return f"{text}Thinned at random: {'; '.join(dict.fromkeys(parts))}."
