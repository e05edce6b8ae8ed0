"""Tables of a paper, as they are printed: text and numbers with their intervals, and LaTeX with booktabs."""

import re

import numpy as np
import pandas as pd

from medsam_nb.errors import printable
from medsam_nb.figures.order import data_sets_in_order, groups_of
from medsam_nb.figures.words import interval_text, label, metric_label, p_text
from medsam_nb.protocol.prompts import PROMPTS_2D
from medsam_nb.statistics.findings import spoken
from medsam_nb.statistics.paired import summarise
from medsam_nb.statistics.pooling import case_means

_SPECIAL = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{"}
_SPECIAL |= {"}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}


LONG = 36  # characters; longer text gets a column that breaks lines
PAGE_ROWS = 40  # of a table that fits a page


def _effects(tests: pd.DataFrame) -> list[str]:
    """Return mean differences with the intervals that answer to the corrected p values."""
    return [
        interval_text(r.difference, r.holm_low, r.holm_high)
        + (" [one-sided]" if r.ci_level < 0.94 and np.isfinite(r.holm_low) else "")
        for r in tests.itertuples()
    ]


def _counts(tests: pd.DataFrame) -> dict[str, list]:
    """Return the columns that say how much a test rests on: units, named as they are, and data sets."""
    nouns = sorted(set(tests["unit"].dropna()))
    name = f"{nouns[0]}s" if len(nouns) == 1 else "n"
    sets = [int(n) if pd.notna(n) else 0 for n in tests["n_data_sets"]]
    return {name: [int(n) for n in tests["n"]], "data sets": sets}


EFFECT = "mean difference (corrected CI)"


def comparison_table(result: pd.DataFrame) -> pd.DataFrame:
    """Return the comparisons of `paired.compare` as printed: n, means, effect with interval, p, finding.

    Data sets weigh alike in means and differences. The interval is that of the test at the level at which
    Holm's method judged it, so it belongs to the p value beside it; "r" is the rank-biserial correlation.
    """
    names = [f"{r.comparison} ({r.level})" if r.level else r.comparison for r in result.itertuples()]
    return pd.DataFrame(
        {
            "comparison": names,
            **_counts(result),
            "mean a": [f"{v:.3f}" if np.isfinite(v) else "-" for v in result["mean_a"]],
            "mean b": [f"{v:.3f}" if np.isfinite(v) else "-" for v in result["mean_b"]],
            EFFECT: _effects(result),
            "r": [f"{v:.2f}" if np.isfinite(v) else "-" for v in result["rank_biserial"]],
            "p (Holm)": [p_text(v) for v in result["p_holm"].astype(float)],
            "finding": [spoken(r.finding, r.generalises_to) for r in result.itertuples()],
        }
    )


def means_table(summary: pd.DataFrame, by: list[str], metric: str = "iou") -> pd.DataFrame:
    """Return means of a metric as printed, from `paired.summarise`: what tells cells apart, mean, n."""
    printed = {c.replace("_", " "): ["-" if pd.isna(v) else label(v) for v in summary[c]] for c in by}
    means = [interval_text(r.mean, r.ci_low, r.ci_high) for r in summary.itertuples()]
    several = (summary["n_patients"] != summary["n_cases"]).any()
    counts = {"patients": summary["n_patients"].to_list()} if several else {}
    counts |= {"cases": summary["n_cases"].to_list(), "data sets": summary["n_data_sets"].to_list()}
    return pd.DataFrame(printed | {f"mean {metric_label(metric)} (95 % CI)": means} | counts)


def data_sets_table(table: pd.DataFrame, metric: str = "iou") -> pd.DataFrame:
    """Return means with intervals as printed, a row per data set (by modality) and a column per prompt.

    Parameters
    ----------
    table : DataFrame
        2D rows of one model.
    metric : str
    """
    rows = table[table["mask_choice"] == "first_mask"]
    means = summarise(case_means(rows, ["prompt"], metric), ["data_set", "prompt"])
    names = data_sets_in_order(rows)
    prompts = [prompt for prompt in PROMPTS_2D if prompt in set(means["prompt"])]
    cells = {
        (row.data_set, row.prompt): interval_text(row.mean, row.ci_low, row.ci_high)
        for row in means.itertuples()
    }
    counts = means.groupby("data_set")["n_cases"].max()
    printed = {"data set": [label(name) for name in names], "modality": groups_of(rows, names)}
    printed |= {"cases": [int(counts[name]) for name in names]}
    printed |= {label(prompt): [cells.get((name, prompt), "-") for name in names] for prompt in prompts}
    return pd.DataFrame(printed)


def claims_table(board: pd.DataFrame) -> pd.DataFrame:
    """Return the scoreboard as printed, one row per test; intervals as in `comparison_table`."""
    return pd.DataFrame(
        {
            "claim": board["claim"] + ": " + board["sentence"],
            "test": board["test"],
            **_counts(board),
            EFFECT: _effects(board),
            "p (Holm)": [p_text(v) for v in board["p_holm"].astype(float)],
            "finding": board["finding"],
            "verdict": board["verdict"],
        }
    )


def _as_latex(value: object) -> str:
    """Return a value as text that prints as it is and steers nothing.

    pandas' own escape leaves "<" and ">", which text fonts print as other signs, and a bracket or star at the
    start of a row, which LaTeX takes for an argument of the line break before it.
    """
    text = " ".join(printable(str(value)).split())
    escaped = "".join(_SPECIAL.get(character, character) for character in text)
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped


def latex(table: pd.DataFrame, caption: str, name: str) -> str:
    """Return a table as LaTeX with booktabs rules; text is escaped, numbers stand to the right.

    Needs the package booktabs, and longtable for more than `PAGE_ROWS` rows, which run over several pages.
    Columns with long text break their lines and share the width.

    Parameters
    ----------
    table : DataFrame
        As it is to be printed; what is missing becomes "-".
    caption : str
    name : str
        Of the LaTeX label; what a label cannot hold becomes "-".
    """
    long = [c for c in table if table[c].astype(str).str.len().max() > LONG]  # NaN without rows: not long
    broken = f"p{{{0.6 / max(len(long), 1):.2f}\\linewidth}}"
    columns = "".join(
        broken if c in long else "r" if pd.api.types.is_numeric_dtype(table[c]) else "l" for c in table
    )
    longer = len(table) > PAGE_ROWS
    styled = table.reset_index(drop=True).style.format(_as_latex, na_rep="-").hide(axis="index")
    return styled.format_index(_as_latex, axis="columns").to_latex(
        environment="longtable" if longer else "table",
        position_float=None if longer else "centering",
        caption=_as_latex(caption),
        label=f"tab:{re.sub(r'[^A-Za-z0-9:._-]+', '-', name)}",
        column_format=columns,
        hrules=True,
    )
