"""Numbers and names as they are printed, in figures, tables and text."""

import re
from textwrap import fill

import numpy as np
import pandas as pd

from medsam_nb.errors import printable
from medsam_nb.figures.choices import chosen

# What a spreadsheet takes for a formula, unless it is a number, a printed interval or a lone dash.
FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
PRINTED_NUMBER = re.compile(r"-|[-+]?[\d.,]+(e[-+]?\d+)?( \([-+\d., to]+\))?( \[\d+ % CI\])?", re.IGNORECASE)

# Parts of names that are written in another way.
SPELT = {"sam2": "SAM 2", "sam": "SAM", "medsam": "MedSAM", "medsam2": "MedSAM2", "ct": "CT", "mri": "MRI"}
SPELT |= {"pet": "PET", "xray": "X-ray", "us": "ultrasound", "mni152": "MNI152", "2d": "2D", "3d": "3D"}


def label(name: object, width: int = 0) -> str:
    """Return a name as it is printed: no underscores, known parts as they are spelt, wrapped if asked for.

    Examples
    --------
    >>> label("miniature_sam2"), label("simulated_xray"), label("sam2.1_hiera_large")
    ('miniature SAM 2', 'simulated X-ray', 'SAM 2.1 hiera large')
    >>> label("SAM 2 against SAM (miniature_sam2, miniature_sam)")
    'SAM 2 against SAM (miniature SAM 2, miniature SAM)'
    """
    named = chosen().names
    if str(name) in named:
        return fill(named[str(name)], width) if width else named[str(name)]
    text = re.sub(r"\w+", lambda word: named.get(word[0], word[0]), str(name)) if named else str(name)
    text = re.sub(r"\bsam2\.1(?=_)", "SAM 2.1", text).replace("_", " ")
    text = re.sub(r"\w+", lambda word: SPELT.get(word[0], word[0]), text)
    return fill(text, width) if width else text


def metric_label(metric: str) -> str:
    """Return the name of a measure as it is printed.

    Examples
    --------
    >>> metric_label("iou"), metric_label("dice"), metric_label("volume_dice")
    ('IoU', 'Dice', 'volume Dice')
    """
    return " ".join({"iou": "IoU", "dice": "Dice", "nsd": "NSD"}.get(p, p) for p in metric.split("_"))


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where it needs one."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def p_text(p: float) -> str:
    """Return a p value as it is printed; "-" where there was no test.

    Examples
    --------
    >>> p_text(0.0312), p_text(0.00001), p_text(float("nan"))
    ('0.031', '<0.001', '-')
    """
    if not np.isfinite(p):
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def interval_text(estimate: float, low: float, high: float) -> str:
    """Return an estimate with its interval; only the estimate where there is no interval.

    Examples
    --------
    >>> interval_text(0.1378, 0.1129, 0.1717), interval_text(-0.0001, -0.002, 0.0004)
    ('0.138 (0.113 to 0.172)', '0.000 (-0.002 to 0.000)')
    """
    if not np.isfinite(estimate):
        return "-"
    # a zero has no sign
    mean, low_text, high_text = (re.sub(r"^-(0\.0+)$", r"\1", f"{x:.3f}") for x in (estimate, low, high))
    return f"{mean} ({low_text} to {high_text})" if np.isfinite(low) else mean


def _as_text(value: object) -> object:
    """Return a cell that no spreadsheet runs and no terminal obeys.

    Text that begins like a formula gets an apostrophe before it.

    Examples
    --------
    >>> [_as_text(value) for value in ("=1+1", "@a", "-0.1 (-0.2 to 0.1)", "liver", -3)]
    ["'=1+1", "'@a", '-0.1 (-0.2 to 0.1)', 'liver', -3]
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if FORMULA.match(value) and not PRINTED_NUMBER.fullmatch(value) else text


def as_csv(table: pd.DataFrame, float_format: str | None = None) -> bytes:
    """Return a table as CSV in UTF-8 whose text no spreadsheet takes for formulas: names come from files."""
    shown = table.copy()
    for place, kind in enumerate(table.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            cells = [_as_text(value) for value in table.iloc[:, place]]
            shown.isetitem(place, pd.Series(cells, index=table.index, dtype=object))
    shown.columns = [_as_text(str(name)) for name in table.columns]
    return shown.to_csv(index=False, float_format=float_format).encode()
