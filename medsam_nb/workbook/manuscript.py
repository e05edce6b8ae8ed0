"""Tables and text for a paper: LaTeX with booktabs rules, and a methods paragraph from the record."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from medsam_nb.errors import printable
from medsam_nb.figures.words import counted, interval_text, label, metric_label, p_text
from medsam_nb.files import write_atomically
from medsam_nb.protocol.designs import DESIGN_FACTORS
from medsam_nb.statistics.findings import NEGLIGIBLE, spoken
from medsam_nb.statistics.inference import FEWEST_DATA_SETS, GENERAL, SIGNS_FROM
from medsam_nb.statistics.paired import COMPARISON_COLUMNS, summarise
from medsam_nb.statistics.pooling import OVERLAPS, case_means, unit_noun
from medsam_nb.workbook.differences import differences_from_sam2
from medsam_nb.workbook.report import read_provenance

_SPECIAL = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{"}
_SPECIAL |= {"}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}


LONG = 36  # characters; longer text gets a column that breaks lines


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

    Needs the package booktabs only. Columns with long text break their lines and share the width.

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
    styled = table.reset_index(drop=True).style.format(_as_latex, na_rep="-").hide(axis="index")
    return styled.format_index(_as_latex, axis="columns").to_latex(
        environment="table",
        position_float="centering",
        caption=_as_latex(caption),
        label=f"tab:{re.sub(r'[^A-Za-z0-9:._-]+', '-', name)}",
        column_format=columns,
        hrules=True,
    )


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def inference_sentences(result: pd.DataFrame, noun: str) -> list[str]:
    """Return what a reviewer asks of the comparisons: families, effect, unit, test, interval, level.

    Parameters
    ----------
    result : DataFrame
        Of `paired.compare`.
    noun : str
        What the unit is called: "patient", or "case" where every case is its own patient.
    """
    tested = result[result["p"].notna()]
    inner = "slices were averaged within an object, objects within a case"
    inner += ", cases within a patient" if noun == "patient" else ""
    found = [f"The {noun} was the unit of observation: {inner}; data sets weigh alike in every mean."]
    sizes = [f"{name}: {n}" for name, n in tested.groupby("family", sort=False).size().items()]
    families = f"{len(sizes)} {'family' if len(sizes) == 1 else 'families'}"
    families += f" ({', '.join(sizes)})" if sizes else ""
    declared = counted(len(result), "comparison")
    found.append(f"Of {declared} declared beforehand, {len(tested)} could be tested, in {families}.")
    if tested.empty:
        return found
    metrics = [metric_label(name) for name in tested["metric"].unique()]
    found.append(f"The effect is the mean paired difference of {_listed(metrics)}.")
    found += _levels(tested, noun)
    small = f"; below {NEGLIGIBLE:g} it is called of no practical weight"
    found.append(
        "P values are two-sided unless said otherwise and were corrected by Holm within a family; an "
        "interval holds the values that the same test does not reject at the level at which Holm's method "
        "judged it. A difference is reported where this interval leaves 0 and mean, median and ranks point "
        f"in one direction{small if tested['metric'].isin(OVERLAPS).any() else ''}. Matched-pairs "
        "rank-biserial correlations (zeros after Pratt) are given beside."
    )
    for test, sentence in (
        ("equivalence", "Equivalence within {}: two one-sided tests, and the interval that answers to them."),
        ("not_worse", "Not worse by {} or more: a one-sided test."),
    ):
        margins = sorted(tested.loc[tested["test"] == test, "margin"].dropna().unique())
        found += [sentence.format(_listed([f"{margin:g}" for margin in margins]))] if margins else []
    return found


def _levels(tested: pd.DataFrame, noun: str) -> list[str]:
    """Return what was drawn by chance in how many comparisons, by which test, and for whom that holds."""
    general = tested["generalises_to"] == GENERAL
    few = general & tested["n_data_sets"].lt(SIGNS_FROM)
    found = []
    if general.any():
        tests = ["an exact sign-change test of their means"] if (general & ~few).any() else []
        tests += [f"a t test of their means (fewer than {SIGNS_FROM} data sets)"] if few.any() else []
        found.append(
            f"In {counted(int(general.sum()), 'comparison')} of {FEWEST_DATA_SETS} or more data sets the "
            f"data set was the unit of inference, by {' or '.join(tests)}; what is found holds for data sets "
            "like these."
        )
    if (~general).any():
        found.append(
            f"In {counted(int((~general).sum()), 'comparison')} of fewer than {FEWEST_DATA_SETS} data sets "
            f"the {noun} was the unit of inference, by an exact sign-change test of the mean in which data "
            "sets weigh alike; what is found holds within these data sets only."
        )
    return found


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
        Of `paired.compare`.
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
        f"{label(name)} (SHA-256 {sha[:12]}{unverified.get(name, '')})"
        for name, sha in provenance.get("checkpoints", {}).items()
    ]
    elsewhere = [
        f"{label(name)} (SHA-256 {sha[:12]})" for name, sha in provenance.get("label_maps", {}).items()
    ]
    n_cases = int(table.groupby(["data_set", "case_id"]).ngroups)
    noun, whose = unit_noun(table), counted(n_cases, "case")
    if noun == "patient":
        patients = table["patient_id"].fillna(table["case_id"])
        whose += f" of {counted(int(table.groupby(['data_set', patients]).ngroups), 'patient')}"
    n_failed = int((table["value"].isna() & table["metric"].eq("iou") & ~table["truth_px"].eq(0)).sum())
    masks = int((table["metric"] == "iou").sum())
    parts = [
        f"We evaluated {_listed(weights) if weights else 'the models'} on {whose} from "
        f"{counted(table['data_set'].nunique(), 'data set')} ({masks:,} scored masks).",
        *([f"Masks from elsewhere were scored alike: {_listed(elsewhere)}."] if elsewhere else []),
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
    parts += inference_sentences(result, noun)
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


def write_manuscript(folder: Path, table: pd.DataFrame, model: str, metric: str = "iou") -> str:
    """Write the main tables of a run as LaTeX and CSV, and the methods text; return the text.

    What the notebooks before have not left (no comparisons, no 3D) is left out.

    Parameters
    ----------
    folder : Path
        Of the run; tables go to `tables/`.
    table : DataFrame
        The tidy table.
    model : str
        Whose designs are listed.
    metric : str
        Of the means: "iou", or "dice" of the same masks. Comparisons and claims have their own.
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
            means_table(summarise(case_means(flat, by, metric), by), by, metric),
            f"2D: mean {metric_label(metric)} over cases.",
        )
    if len(deep):
        design = list(DESIGN_FACTORS)
        means = means_table(summarise(case_means(deep, design, metric), design), design, metric)
        printed["designs_3d"] = means, f"3D: mean {metric_label(metric)} over cases."
    for name, (shown, caption) in printed.items():
        write_atomically(tables / f"{name}.tex", latex(shown, caption, name).encode())
        write_atomically(tables / f"{name}_printed.csv", shown.to_csv(index=False).encode())
    records = [record for record in read_provenance(folder).values() if "checkpoints" in record]
    record = dict(records[0]) if records else {}
    for kind in ("checkpoints", "label_maps"):
        record[kind] = {k: v for r in records for k, v in r.get(kind, {}).items()}
    made = found.get("comparisons", pd.DataFrame(columns=COMPARISON_COLUMNS))
    paragraph = methods_paragraph(record, table, made, found.get("cases"))
    for task, parameter in (("2D", "prompts"), ("3D", "designs")):
        of_task = [each for each in records if parameter in each.get("parameters", {})]
        differing = dict.fromkeys(one for each in of_task for one in differences_from_sam2(each))
        if differing:
            paragraph += (
                f"\n\n{task}, what differs from running the sam2 package oneself: {' '.join(differing)}"
            )
    write_atomically(tables / "methods.txt", paragraph.encode())
    return paragraph
