"""In which order names stand in figures: data sets by modality, models as the study lists them."""

import re
from collections.abc import Iterable

import pandas as pd

from medsam_nb.figures.choices import chosen

GROUPS = ("MRI", "CT", "PET", "X-ray", "ultrasound")  # as in the paper's figures; others follow


def modality_group(modality: object) -> str:
    """Return the group that a modality belongs to; itself if it belongs to none.

    Examples
    --------
    >>> modality_group("MRI T2*"), modality_group("simulated X-ray"), modality_group("OCT")
    ('MRI', 'X-ray', 'OCT')
    """
    for group in GROUPS:
        if re.search(rf"(?<![A-Za-z]){re.escape(group)}(?![A-Za-z])", str(modality), re.IGNORECASE):
            return group
    return "" if pd.isna(modality) else str(modality)


def _place(group: str) -> tuple[int, str]:
    return (GROUPS.index(group), "") if group in GROUPS else (len(GROUPS), group)


def data_sets_in_order(rows: pd.DataFrame) -> list[str]:
    """Return the data sets of a table in the order in which figures show them.

    Parameters
    ----------
    rows : DataFrame
        With `data_set`; and `modality`, without which they are sorted by name.
    """
    known = rows.assign(modality=rows.get("modality", ""))
    groups = known.groupby("data_set", observed=True)["modality"].first().map(modality_group).to_dict()
    listed = chosen().order.data_sets
    first = [name for name in listed if name in groups] if isinstance(listed, list) else []
    others = sorted(set(groups) - set(first), key=lambda name: (_place(groups[name]), name))
    return first + others


def groups_of(rows: pd.DataFrame, names: Iterable[str]) -> list[str]:
    """Return the modality group of every data set of `names`."""
    if "modality" not in rows:
        return ["" for _ in names]
    found = rows.groupby("data_set", observed=True)["modality"].first().map(modality_group)
    return [found.get(name, "") for name in names]


def in_order(names: Iterable[str], listed: Iterable[str] = ()) -> list[str]:
    """Return names as the study orders models (or as `listed`), the others behind in their own order."""
    names = list(dict.fromkeys(names))
    first = [name for name in (*chosen().order.models, *listed) if name in names]
    return list(dict.fromkeys([*first, *names]))
