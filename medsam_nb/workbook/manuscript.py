"""Tables and text for a paper: LaTeX with booktabs rules, and a methods paragraph from the record."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from medsam_nb.errors import printable
from medsam_nb.figures.words import counted, interval_text, p_text
from medsam_nb.files import write_atomically
from medsam_nb.protocol.designs import DESIGN_FACTORS
from medsam_nb.statistics.paired import summarise
from medsam_nb.statistics.pooling import case_means
from medsam_nb.workbook.differences import differences_from_sam2  # noqa: F401 (offered with the other texts)
from medsam_nb.workbook.report import read_provenance

COMPARISON_COLUMNS = ["comparison", "n", "mean a", "mean b", "difference (95 % CI)", "r", "p (Holm)"]
_SPECIAL = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{"}
_SPECIAL |= {"}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}


LONG = 36  # characters; longer text gets a column that breaks lines


def comparison_table(result: pd.DataFrame) -> pd.DataFrame:
    """Return the comparisons of `paired.compare` as printed: n, means, effect with interval, p last."""
    names = [f"{r.comparison} ({r.level})" if r.level else r.comparison for r in result.itertuples()]
    return pd.DataFrame(
        {
            "comparison": names,
            "n": result["n"].to_list(),
            "mean a": [f"{v:.3f}" if np.isfinite(v) else "-" for v in result["mean_a"]],
            "mean b": [f"{v:.3f}" if np.isfinite(v) else "-" for v in result["mean_b"]],
            "difference (95 % CI)": [
                interval_text(r.difference, r.ci_low, r.ci_high)
                + (" [90 % CI]" if r.ci_level < 0.94 and np.isfinite(r.ci_low) else "")
                for r in result.itertuples()
            ],
            "r": [f"{v:.2f}" if np.isfinite(v) else "-" for v in result["rank_biserial"]],
            "p (Holm)": [p_text(v) for v in result["p_holm"].astype(float)],
        },
        columns=COMPARISON_COLUMNS,
    )


def means_table(summary: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return means over cases as printed, from `paired.summarise`: what tells cells apart, mean, n."""
    printed = {c.replace("_", " "): [str(v).replace("_", " ") for v in summary[c]] for c in by}
    means = [interval_text(r.mean, r.ci_low, r.ci_high) for r in summary.itertuples()]
    counts = {"cases": summary["n_cases"].to_list(), "data sets": summary["n_data_sets"].to_list()}
    return pd.DataFrame(printed | {"mean IoU (95 % CI)": means} | counts)


def claims_table(board: pd.DataFrame) -> pd.DataFrame:
    """Return the scoreboard as printed, one row per test."""
    return pd.DataFrame(
        {
            "claim": board["claim"] + ": " + board["sentence"],
            "test": board["test"],
            "n": board["n"],
            "estimate (95 % CI)": [
                interval_text(r.difference, r.ci_low, r.ci_high)
                + (" [90 % CI]" if r.ci_level < 0.94 and np.isfinite(r.ci_low) else "")
                for r in board.itertuples()
            ],
            "p (Holm)": [p_text(v) for v in board["p_holm"].astype(float)],
            "verdict": board["verdict"],
        }
    )


def latex(table: pd.DataFrame, caption: str, name: str) -> str:
    """Return a table as LaTeX with booktabs rules; text is escaped, numbers stand to the right.

    Needs the package booktabs only. Columns with long text break their lines and share the width.

    Parameters
    ----------
    table : DataFrame
        As it is to be printed.
    caption : str
    name : str
        Of the LaTeX label.
    """

    def cell(value: object) -> str:
        text = " ".join(printable(str(value)).split())
        return "".join(_SPECIAL.get(character, character) for character in text)

    key = re.sub(r"[^A-Za-z0-9:._-]+", "-", name)  # no character that steers TeX, and none that ends a label
    long = [c for c in table if table[c].astype(str).str.len().max() > LONG]  # NaN without rows: not long
    broken = f"p{{{0.6 / max(len(long), 1):.2f}\\linewidth}}"
    columns = "".join(
        broken if c in long else "r" if pd.api.types.is_numeric_dtype(table[c]) else "l" for c in table
    )
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{cell(caption)}}}", rf"\label{{tab:{key}}}"]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [" & ".join(cell(c) for c in table.columns) + r" \\", r"\midrule"]
    rows = [" & ".join(cell(v) for v in row) + r" \\" for row in table.itertuples(index=False)]
    lines += [
        f"{{}}{row}" if row.startswith(("[", "*")) else row for row in rows
    ]  # no argument of the \\ before
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def methods_paragraph(
    provenance: Mapping, table: pd.DataFrame, result: pd.DataFrame, cases: pd.DataFrame | None = None
) -> str:
    """Return a methods paragraph from the record of a run, ready to be pasted.

    Parameters
    ----------
    provenance : mapping
        As `study.provenance` gives it.
    table : DataFrame
        The tidy table.
    result : DataFrame
        Of `stats.compare`.
    cases : DataFrame, optional
        The case table with columns `status` and `accuracy`; what was excluded is counted from it.
    """
    packages = provenance.get("packages", {})
    if not isinstance(packages, Mapping):
        packages = {}
    wanted = ("sam2", "segment-anything", "torch", "numpy", "scipy", "statsmodels")
    versions = [f"{name} {packages[name]}" for name in wanted if packages.get(name)]
    unverified = dict.fromkeys(provenance.get("unverified_weights", ()), ", unverified")
    weights = [
        f"{name} (SHA-256 {sha[:12]}{unverified.get(name, '')})"
        for name, sha in provenance.get("checkpoints", {}).items()
    ]
    n_cases = int(table.groupby(["data_set", "case_id"]).ngroups)
    n_failed = int((table["value"].isna() & table["metric"].eq("iou") & ~table["truth_px"].eq(0)).sum())
    masks = int((table["metric"] == "iou").sum())
    parts = [
        f"We evaluated {_listed(weights) if weights else 'the models'} on {counted(n_cases, 'case')} of "
        f"{counted(table['data_set'].nunique(), 'data set')} ({masks:,} scored masks).",
        f"{counted(n_failed, 'mask')} failed; a failed mask counts as an IoU of 0.",
    ]
    missing = len(provenance.get("failed_units", ()))
    if missing:
        parts.append(f"{counted(missing, 'unit')} of work (a case with a model) failed: not in the tables.")
    if cases is not None:
        excluded = int((cases["status"] == "failed").sum())
        parts.append(f"{counted(excluded, 'case')} could not be used; nothing was imputed.")
        healthy = int((cases["status"] == "no_object").sum())
        formats = int((~cases["accuracy"] & (cases["status"] == "ok")).sum())
        parts += [f"Left out for holding no object: {counted(healthy, 'case')}."] if healthy else []
        parts += [f"Not measured, their masks being no reference: {formats}."] if formats else []
    protocols = sorted(table["protocol"].dropna().unique())
    if protocols:
        parts.append(f"Protocol: {_listed(list(protocols))}.")
    tests, families = int(result["p"].notna().sum()), result.loc[result["p"].notna(), "family"].nunique()
    units = set(result["unit"].dropna()) if "unit" in result else set()
    unit = "case" if "patient" not in units else "patient"
    whose = ", cases within a patient" if unit == "patient" else ""
    parts.append(
        f"Slices were averaged within an object, objects within a case{whose}; every data set had the same "
        f"weight. Of {counted(len(result), 'comparison')} declared beforehand, {tests} could be tested, in "
        f"{'1 family' if families == 1 else f'{families} families'}, with exact Wilcoxon signed-rank tests "
        "(zeros after Pratt); p values were corrected by Holm within a family. Reported are pseudo-medians "
        "of the paired differences with the 95 % intervals that invert the test, and matched-pairs "
        "rank-biserial correlations."
    )
    levels = set(result["generalises_to"].dropna()) if "generalises_to" in result else set()
    if "data sets like these" in levels:
        parts.append("Data sets were the units of the tests, so that results speak of data sets like these.")
    elif "these data sets" in levels:
        parts.append(
            f"With fewer than six data sets the {unit} was the unit of the tests, stratified by data set, so "
            "that results speak of these data sets only."
        )
    margins = sorted(result.loc[result["test"] == "equivalence", "margin"].dropna().unique())
    if margins:
        within = _listed([f"{margin:g}" for margin in margins])
        parts.append(f"Equivalence within {within} IoU: two one-sided tests, 90 % intervals.")
    devices, seeds = provenance.get("device", []), provenance.get("seed", [])
    run = [f"device {_listed(list(devices))}"] if devices else []
    run += [f"arithmetic {_listed(list(provenance['dtype']))}"] if provenance.get("dtype") else []
    run += [f"seed {_listed(list(map(str, seeds)))}"] if seeds else []
    run += [f"code at commit {str(provenance['git_commit'])[:12]}"] if provenance.get("git_commit") else []
    if versions:
        parts.append(f"Software: {_listed(versions)}.")
    if run:
        parts.append(f"Run: {', '.join(run)}.")
    return " ".join(parts)


def write_manuscript(folder: Path, table: pd.DataFrame, model: str) -> str:
    """Write the main tables of a run as LaTeX and CSV, and the methods paragraph; return the paragraph.

    What the notebooks before have not left (no comparisons, no 3D) is left out.

    Parameters
    ----------
    folder : Path
        Of the run; tables go to `tables/`.
    table : DataFrame
        The tidy table.
    model : str
        Whose designs are listed.
    """
    tables = Path(folder) / "tables"
    found = {path.stem: pd.read_parquet(path) for path in tables.glob("*.parquet")}
    flat, by = table[table["task"] == "2d"], ["model", "prompt", "mask_choice"]
    deep = table[(table["task"] == "3d") & (table["model"] == model)]
    printed = {}
    if "comparisons" in found:
        caption = "Paired comparisons; a positive difference favours a."
        printed["comparisons"] = comparison_table(found["comparisons"]), caption
    if "claims" in found:
        printed["claims"] = claims_table(found["claims"]), "Claims of the study on this table."
    if "published_sam" in found:
        caption = "SAM's published results; the object is the unit."
        printed["published_sam"] = comparison_table(found["published_sam"]), caption
    if len(flat):
        printed["prompts_2d"] = (
            means_table(summarise(case_means(flat, by), by), by),
            "2D: mean IoU over cases.",
        )
    if len(deep):
        design = list(DESIGN_FACTORS)
        means = means_table(summarise(case_means(deep, design), design), design)
        printed["designs_3d"] = means, "3D: mean IoU over cases."
    for name, (shown, caption) in printed.items():
        write_atomically(tables / f"{name}.tex", latex(shown, caption, name).encode())
        write_atomically(tables / f"{name}_printed.csv", shown.to_csv(index=False).encode())
    records = [record for record in read_provenance(folder).values() if "checkpoints" in record]
    record = dict(records[0]) if records else {}
    record["checkpoints"] = {k: v for r in records for k, v in r["checkpoints"].items()}
    made = found.get("comparisons", pd.DataFrame({"p": [], "family": [], "test": [], "margin": []}))
    paragraph = methods_paragraph(record, table, made, found.get("cases"))
    write_atomically(tables / "methods.txt", paragraph.encode())
    return paragraph
