"""Which of the designs and prompts a study wants drawn: rows of the table in, those of them out.

Only what is drawn is chosen here. Tables, tests and findings are given the whole table. What was prompted by
a file of prompts is always drawn: it has no other prompt and frame choice that could stand for it.
"""

from collections.abc import Collection

import pandas as pd

from medsam_nb.figures.choices import chosen
from medsam_nb.protocol.designs import DESIGN_FACTORS, chosen_designs
from medsam_nb.protocol.prompt_sources import GIVEN


def drawn_designs(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the 3D rows of the designs that a study wants drawn (`style.designs`), and what is left out.

    Parameters
    ----------
    table : DataFrame
        In the form of `protocol.table`.

    Returns
    -------
    rows : DataFrame
    said : str
        Such as " 8 of 64 designs are drawn.", to follow a caption; empty if none is left out.
    """
    rows = table[table["task"] == "3d"]
    wanted = {tuple(design.name.split("/")) for design in chosen_designs(chosen().designs)}
    wanted |= {(GIVEN, GIVEN, *rest) for _, _, *rest in wanted}
    return _of(rows, list(DESIGN_FACTORS), wanted, "designs")


def drawn_prompts(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the 2D rows of the prompts that a study wants drawn (`style.prompts`), and what is left out.

    Parameters and what is returned are as of `drawn_designs`.
    """
    rows = table[table["task"] == "2d"]
    return _of(rows, ["prompt"], {(name,) for name in (*chosen().prompts, GIVEN)}, "prompts")


def _of(
    rows: pd.DataFrame, columns: list[str], wanted: Collection[tuple], what: str
) -> tuple[pd.DataFrame, str]:
    """Return the rows that have one of the wanted combinations of columns, and how many of them there are."""
    there = set(rows[columns].dropna().drop_duplicates().itertuples(index=False, name=None))
    left_out = there - set(wanted)
    if not left_out:
        return rows, ""
    said = f" {len(there) - len(left_out)} of {len(there)} {what} are drawn."
    return rows[pd.MultiIndex.from_frame(rows[columns]).isin(there - left_out)], said
