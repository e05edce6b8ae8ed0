"""From the numbers of a test to a finding in words, with its reason.

A finding is "inconclusive" as long as its interval, at the level of the family's correction, holds what it
denies; where mean, median and ranks do not point in one direction; and where there are too few units. It is
"of no practical weight" where a difference is certain and its whole interval smaller than `NEGLIGIBLE`; where
only its estimate is, whether it matters is open.
"""

from collections.abc import Mapping

import numpy as np

from medsam_nb.statistics.inference import ALPHA, GENERAL

NEGLIGIBLE = 0.01  # IoU or Dice; a difference can be certain and yet not matter
SHOWN, OPPOSED, TINY, OPEN = "shown", "opposed", "of no practical weight", "inconclusive"
RELATIONS = {
    "!=": ("a is higher", "b is higher"),
    ">": ("a is higher", "b is higher"),
    "<": ("b is higher", "a is higher"),
    "=": ("equivalent", "not equivalent"),
    ">=": ("not worse", "worse"),
}


def one_direction(*effects: float) -> bool:
    """Return whether no two of the effects have opposite signs; zeros and NaN agree with everything."""
    signs = np.sign([effect for effect in effects if np.isfinite(effect)])
    return not (signs.min(initial=0) < 0 < signs.max(initial=0))


def outcome(relation: str, row: Mapping, margin: float = 0.0, overlap: bool = True) -> tuple[str, str]:
    """Return what one test shows of the relation that is asked of it, and why where it shows nothing.

    Parameters
    ----------
    relation : {"!=", ">", "<", "<<", "=", ">="}
        Of a to b: any difference, higher, lower, lower by more than the margin, within +-margin, not lower
        by more than the margin. Of "!=" a higher a is `SHOWN`, a higher b is `OPPOSED`.
    row : mapping
        `p_holm`, `holm_low`, `holm_high`, `difference`, `median_difference`, `rank_biserial`.
    margin : float
    overlap : bool
        Whether differences are of IoU or Dice, so that they can be `NEGLIGIBLE`.

    Returns
    -------
    what : {"shown", "opposed", "of no practical weight", "inconclusive"}
    why : str
        Empty for the first two.
    """
    p, low, high = row["p_holm"], row["holm_low"], row["holm_high"]
    if not np.isfinite(p):
        return OPEN, ""  # the note of the row says what is missing
    if not np.isfinite([low, high]).any():
        return OPEN, "too few for the corrected level"
    low, high = low if np.isfinite(low) else -np.inf, high if np.isfinite(high) else np.inf
    significant = p < ALPHA
    if relation == "=":
        if significant and -margin < low and high < margin:
            return SHOWN, ""
        outside = low > margin or high < -margin
        return (OPPOSED, "") if outside else (OPEN, f"the interval leaves the margin of {margin:g}")
    if relation == ">=":
        if significant and low > -margin:
            return SHOWN, ""
        return (OPPOSED, "") if high < -margin else (OPEN, f"the interval reaches below -{margin:g}")
    denied = -margin if relation == "<<" else 0.0
    if not significant or low <= denied <= high:
        return OPEN, f"the interval holds {denied:g}"
    mean, median, ranks = row["difference"], row["median_difference"], row["rank_biserial"]
    if relation != "<<" and not one_direction(mean, median, ranks):
        return OPEN, (
            f"mean ({mean:+.3f}), median ({median:+.3f}) and ranks (rank-biserial {ranks:+.2f}) do not "
            "point in one direction"
        )
    if relation != "<<" and overlap and abs(mean) < NEGLIGIBLE:
        if low > -NEGLIGIBLE and high < NEGLIGIBLE:
            return TINY, f"certain, but smaller than {NEGLIGIBLE:g}"
        return OPEN, f"its direction is certain, but not whether it reaches {NEGLIGIBLE:g}"
    higher = low > denied
    return (SHOWN if higher == (relation in ("!=", ">")) else OPPOSED), ""


def finding(relation: str, row: Mapping, margin: float = 0.0, overlap: bool = True) -> tuple[str, str]:
    """Return the finding of a comparison ("a is higher", "equivalent", ...), and why if there is none.

    Parameters are those of `outcome`.
    """
    what, why = outcome(relation, row, margin, overlap)
    shown, opposed = RELATIONS[relation]
    return {SHOWN: shown, OPPOSED: opposed}.get(what, what), why


def spoken(verdict: str, generalises_to: str) -> str:
    """Return a verdict with whom it speaks of, unless that is data sets like these.

    Examples
    --------
    >>> spoken("supported", "these data sets"), spoken("supported", "data sets like these")
    ('supported within these data sets', 'supported')
    """
    silent = verdict in ("inconclusive", "not testable") or generalises_to in ("", GENERAL)
    return verdict if silent else f"{verdict} within {generalises_to}"
