"""Two runs side by side: what differs in their records, which rows they share, how far values differ."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from medsam_nb.errors import StudyError
from medsam_nb.figures.style import (
    PROMPT_COLOURS,
    PROMPT_MARKERS,
    canvas,
    iou_axis,
    legend,
    mark,
    nothing,
    prompt_mark,
    save,
    size_of,
    style,
)
from medsam_nb.figures.words import label
from medsam_nb.protocol.table import FACTORS
from medsam_nb.statistics.declarations import Comparison
from medsam_nb.statistics.findings import finding
from medsam_nb.statistics.paired import assess, corrected
from medsam_nb.statistics.pooling import unit_noun
from medsam_nb.workbook.report import read_provenance, read_results, save_table

CELL = [name for name in FACTORS if name not in ("task", "model")]
PLACE = ["task", "data_set", "case_id", "object", "slice_index", "metric", "distance_slices", *CELL]
NOTHING = pd.DataFrame(columns=["comparison", "n"])


@dataclass(frozen=True, eq=False)
class Sides:
    """What two runs share and where they differ.

    Attributes
    ----------
    names : (str, str)
    record : DataFrame
        `notebook`, `what`, and the value in either run, for all that differs.
    rows : DataFrame
        Per task and pair of models: rows in both, in one only, equal values, and the largest difference.
    pairs : DataFrame
        Rows of both runs with `value_a`, `value_b`.
    differences : DataFrame
        Per task, pair of models and prompt the mean paired difference of the IoU (second less first), as
        `paired.compare` gives it.
    """

    names: tuple[str, str]
    record: pd.DataFrame
    rows: pd.DataFrame
    pairs: pd.DataFrame
    differences: pd.DataFrame


def compare_runs(first: Path, second: Path) -> Sides:
    """Compare two runs' folders: their records, rows and values.

    Raises
    ------
    StudyError
        If one holds no results.
    """
    folders = [Path(first), Path(second)]
    for folder in folders:
        if not (folder / "tables").is_dir():
            raise StudyError(folder, "is no folder of a run.", "Name two folders, such as runs/demo.")
    names = tuple(folder.resolve().name for folder in folders)
    tables = [read_results(folder) for folder in folders]
    found = [list(_paired(*(table[table["task"] == task] for table in tables))) for task in ("2d", "3d")]
    pairs = pd.concat([one for part in found for one, _ in part] or [pd.DataFrame()], ignore_index=True)
    counts = pd.DataFrame([count for part in found for _, count in part])
    differences = _differences(pairs, unit_noun(tables[0])) if len(pairs) else NOTHING
    return Sides(names, _record(*map(read_provenance, folders)), counts, pairs, differences)


def _flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Give the parts of a record, each with its path."""
    if isinstance(value, Mapping) and value:
        for key, one in value.items():
            yield from _flat(one, f"{name}, {key}" if name else str(key))
    else:
        yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _record(first: Mapping[str, Any], second: Mapping[str, Any]) -> pd.DataFrame:
    rows = []
    for notebook in dict.fromkeys([*first, *second]):
        parts = [dict(_flat(record.get(notebook, {}))) for record in (first, second)]
        for what in dict.fromkeys([*parts[0], *parts[1]]):
            one, other = (part.get(what, "-") for part in parts)
            if one != other and what not in ("", "seconds"):
                rows.append({"notebook": notebook, "what": what, "first": one, "second": other})
    return pd.DataFrame(rows, columns=["notebook", "what", "first", "second"])


def _paired(first: pd.DataFrame, second: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, dict]]:
    """Give the rows that two tables of a task share, per model of both; or of the one model that each has."""
    models = [list(table["model"].dropna().unique()) for table in (first, second)]
    common = [(name, name) for name in models[0] if name in models[1]]
    if not common and all(len(names) == 1 for names in models):
        common = [(models[0][0], models[1][0])]
    for one, other in common:
        sides = [t[t["model"] == name] for t, name in ((first, one), (second, other))]
        place = [name for name in PLACE if all(name in t and t[name].notna().any() for t in sides)]
        kept = [*place, "value", *(["patient_id"] if "patient_id" in sides[0] else [])]
        merged = sides[0][kept].merge(
            sides[1][[*place, "value"]], on=place, suffixes=("_a", "_b"), how="outer", indicator=True
        )
        both = merged[merged["_merge"] == "both"].drop(columns="_merge")
        pair = one if one == other else f"{label(one)}, then {label(other)}"
        gap = (both["value_b"] - both["value_a"]).astype(float).abs()
        yield (
            both.assign(model=pair),
            {
                "task": label(sides[0]["task"].iloc[0]),
                "models": label(pair),
                "rows in both": len(both),
                "in the first only": int((merged["_merge"] == "left_only").sum()),
                "in the second only": int((merged["_merge"] == "right_only").sum()),
                "equal values": int((gap.fillna(0) == 0).sum()),
                "largest difference": float(gap.max()) if len(both) else float("nan"),
            },
        )


def _case_means(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return both values of every case: over slices, then objects and other factors."""
    by = ["data_set", "case_id"]
    cells = pairs.groupby([*by, "object"])[["value_a", "value_b"]].mean()
    means = cells.groupby(by).mean().reset_index()
    patients = pairs.groupby(by)["patient_id"].first().reset_index()
    means = means.merge(patients, on=by)
    means["patient_id"] = means["patient_id"].fillna(means["case_id"])
    grouped = means.groupby(["data_set", "patient_id"])
    found = grouped[["value_a", "value_b"]].mean()
    return found.assign(n_cases=grouped.size()).reset_index()


def _differences(pairs: pd.DataFrame, noun: str) -> pd.DataFrame:
    rows, intervals = [], []
    values = pairs[pairs["metric"] == "iou"].astype({"value_a": float, "value_b": float})
    for (task, model, prompt), group in values.groupby(["task", "model", "prompt"], sort=False):
        units = _case_means(group).rename(columns={"value_b": "a", "value_a": "b"})
        row, interval = assess(units, Comparison("runs", {}, {}), noun)
        name = f"{label(task)}, {label(prompt)}"
        rows.append({"comparison": name, "level": model, "family": "runs", "metric": "iou"} | row)
        intervals.append(interval)
    if not rows:
        return NOTHING
    result = corrected(rows, intervals)
    told = [finding("!=", row) for row in result.to_dict("records")]
    words = {"a is higher": "second is higher", "b is higher": "first is higher"}
    result["finding"] = [words.get(what, what) for what, _ in told]
    return result


def draw(sides: Sides, ax: Axes) -> pd.DataFrame:
    """Draw every case's mean IoU in the second run against that in the first, a colour and shape per prompt.

    Marks of 2D are filled, those of 3D open.
    """
    pairs = sides.pairs
    values = pairs[pairs["metric"] == "iou"] if len(pairs) else pairs
    if not len(values):
        return nothing(ax, "the runs share no row")
    values = values.astype({"value_a": float, "value_b": float})
    cells = ["task", "model", "prompt", "data_set", "case_id"]
    drawn = values.groupby(cells)[["value_a", "value_b"]].mean().reset_index()
    ax.plot([0, 1], [0, 1], color="#7a7a7a", lw=0.6, ls="--")
    for row in drawn.itertuples():
        marker, colour = PROMPT_MARKERS.get(row.prompt, "o"), PROMPT_COLOURS.get(row.prompt, "black")
        look = {"color": colour, "mfc": colour if row.task == "2d" else "none", "mew": 0.6}
        ax.plot(row.value_a, row.value_b, marker, ms=size_of(marker, 2.8), **look)
    iou_axis(ax, f"mean IoU of a case, {sides.names[0]}")
    iou_axis(ax, f"mean IoU of a case, {sides.names[1]}", "y")
    ax.set_aspect("equal")
    present = [name for name in PROMPT_COLOURS if name in set(drawn["prompt"])]
    handles = [prompt_mark(name) for name in present]
    if drawn["task"].nunique() > 1:
        handles += [mark("black", "2D"), mark("black", "3D", filled=False)]
    legend(ax, handles, columns=4)
    return drawn


def sentences(sides: Sides) -> list[str]:
    """Return what two runs share and how they differ, in sentences."""
    if sides.rows.empty:
        return ["The runs share no model, so no value can be compared."]
    said = []
    for row in sides.rows.to_dict("records"):
        text = f"{row['task']}, {row['models']}: {row['rows in both']} rows in both"
        if row["rows in both"]:
            text += f", {row['equal values']} of them equal"
            text += f", largest difference {row['largest difference']:.3g}"
        only = [f"{row[f'in the {side} only']} in the {side} only" for side in ("first", "second")]
        said.append(f"{text}; {', '.join(only)}.")
    many = len(sides.record)
    said.append("1 entry of the records differs." if many == 1 else f"{many} entries of the records differ.")
    return said


def write_comparison(sides: Sides, folder: Path) -> Path:
    """Write tables, figure and page of a comparison; return the page's path."""
    from medsam_nb.workbook.report.page import write_comparison_page

    for name in ("record", "rows", "differences"):
        save_table(getattr(sides, name), folder, name)
    with style():
        figure, ax = canvas(110, 110)
        save(figure, folder / "figures", "cases", draw(sides, ax))
    return write_comparison_page(sides.names, sentences(sides), sides.differences, folder)
