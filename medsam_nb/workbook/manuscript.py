"""Tables and text for a paper: LaTeX with booktabs rules, and a methods paragraph from the record."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from medsam_nb.figures.words import counted, label, metric_label
from medsam_nb.files import write_atomically
from medsam_nb.protocol.designs import DESIGN_FACTORS
from medsam_nb.statistics.findings import NEGLIGIBLE
from medsam_nb.statistics.inference import FEWEST_DATA_SETS, GENERAL, SIGNS_FROM
from medsam_nb.statistics.paired import COMPARISON_COLUMNS, summarise
from medsam_nb.statistics.pooling import OVERLAPS, case_means, unit_noun
from medsam_nb.workbook.differences import differences_from_sam2
from medsam_nb.workbook.printed import claims_table, comparison_table, data_sets_table, latex, means_table
from medsam_nb.workbook.report import read_provenance


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


def write_manuscript(
    folder: Path, table: pd.DataFrame, model: str, metric: str = "iou"
) -> tuple[str, list[str]]:
    """Write the main tables of a run as LaTeX and CSV, and the methods text.

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

    Returns
    -------
    text : str
        Also in `methods.txt`.
    names : list of str
        Of the files of LaTeX.
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
        printed["data_sets_2d"] = (
            data_sets_table(flat[flat["model"] == model], metric),
            f"2D, {label(model)}, first mask: mean {metric_label(metric)} by data set and prompt (95 % CI).",
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
    for task, parameter in (("2D", "prompts"), ("3D", "designs"), ("Corrections of volumes", "loops")):
        of_task = [each for each in records if parameter in each.get("parameters", {})]
        differing = dict.fromkeys(one for each in of_task for one in differences_from_sam2(each))
        if differing:
            paragraph += (
                f"\n\n{task}, what differs from running the sam2 package oneself: {' '.join(differing)}"
            )
    write_atomically(tables / "methods.txt", paragraph.encode())
    return paragraph, [f"{name}.tex" for name in printed]
