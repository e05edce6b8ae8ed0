"""What others published of SAM 2 on medical images, and what a results table has to stand beside it.

`reference_data/sam2_published.csv` holds the numbers, each with where it was read. Two numbers are put side
by side only where object, modality, task and metric are the same and the design does not contradict what is
stated; data, prompts and weights differ all the same, so no difference is computed.
"""

from collections.abc import Collection
from importlib.resources import files

import pandas as pd

from medsam_nb.protocol.designs import DESIGN_FACTORS
from medsam_nb.protocol.table import FACTORS
from medsam_nb.statistics.pooling import check_table
from medsam_nb.statistics.released_scripts import paper_means

COLUMN_TYPES = {
    "data_set": "string",
    "object": "string",
    "modality": "string",
    "model": "string",
    "task": "string",
    "prompt": "string",
    "frame_choice": "string",
    "direction": "string",
    "metric": "string",
    "value": "Float64",
    "sd": "Float64",
    "n": "Int64",
    "unit": "string",
    "fine_tuned": "bool",
    "source": "string",
    "read_from": "string",
}
ONE_SLICE = ("first_slice", "centre_slice", "largest_slice")
# The metric of the results table in which a published one is: Dice of a volume, where a study is in 3D.
SAME_METRIC = {("3d", "dice"): "volume_dice", ("3d", "iou"): "iou"}
DESIGN = [factor for factor in DESIGN_FACTORS if factor != "mask_choice"]  # what publications may state
APART = [factor for factor in FACTORS if factor not in ("task", *DESIGN_FACTORS)]
COMPARABLE_COLUMNS = [
    *("source", "object", "metric", "published", "published_sd", "published_n", "published_unit"),
    *("read_from", "verified", "not_stated", "data_set", *APART, "n_designs", "measured_mean"),
    *("measured_lowest", "measured_highest", "n_objects", "n_patients"),
]


def sam2_table() -> pd.DataFrame:
    """Return the published numbers, with the columns `COLUMN_TYPES`.

    Empty cells are not stated in what was read. `frame_choice` "one slice" is one prompted slice of a volume,
    whichever. A row without an object is a mean over data sets.
    """
    path = files("medsam_nb.statistics") / "reference_data" / "sam2_published.csv"
    with path.open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=COLUMN_TYPES)


def is_verified(published: pd.DataFrame) -> pd.Series:
    """Return whether a number was read where its authors state it."""
    return ~published["read_from"].str.contains("unverified")


def sam2_printed() -> pd.DataFrame:
    """Return the published numbers as printed, a line each; what is unverified says so."""
    table = sam2_table()
    means = [
        f"{value:g}" if pd.isna(sd) else f"{value:.3f} (SD {sd:.3f})"
        for value, sd in zip(table["value"], table["sd"], strict=True)
    ]
    what = table[["data_set", "object"]].apply(lambda r: ": ".join(r.dropna()), axis=1)
    design = table[["prompt", "frame_choice", "direction"]]
    stated = design.apply(lambda r: ", ".join(r.dropna().str.replace("_", " ")), axis=1)
    units = table["unit"].where(table["n"] == 1, table["unit"] + "s")
    return pd.DataFrame(
        {
            "of": what,
            "prompt": stated.where(stated != "", "not stated"),
            "metric": table["metric"].map({"dice": "Dice", "iou": "IoU"}),
            "mean": means,
            "n": table["n"].astype("string") + " " + units,
            "source": table["source"],
            "read from": table["read_from"],
        }
    )


def _words(name: object) -> frozenset[str]:
    """Return the words of an object's name in any order: "kidney_right" is "right kidney".

    Examples
    --------
    >>> _words("adrenal_gland_left") == _words("left adrenal gland")
    True
    """
    return frozenset(str(name).lower().replace("_", " ").replace("-", " ").split())


def _of_design(rows: pd.DataFrame, row: pd.Series) -> pd.DataFrame:
    """Keep the rows whose design is the published one, as far as it is stated."""
    for factor in DESIGN:
        if pd.notna(row[factor]):
            wanted = ONE_SLICE if row[factor] == "one slice" else [row[factor]]
            rows = rows[rows[factor].isin(wanted)]
    return rows


def _objects(rows: pd.DataFrame, row: pd.Series) -> pd.DataFrame:
    """Return one value per design, data set and object: the mean over its patients."""
    rows = rows[rows["metric"] == SAME_METRIC[row["task"], row["metric"]]]
    rows = rows[rows["modality"].str.lower() == row["modality"].lower()]
    alike = [name for name in rows["object"].dropna().unique() if _words(name) == _words(row["object"])]
    rows = rows[rows["object"].isin(alike)]
    cell = ["data_set", "object", *APART, *DESIGN_FACTORS]
    case = (
        rows.astype({"value": float}).groupby([*cell, "patient_id", "case_id"], dropna=False)["value"].mean()
    )
    patient = case.groupby([*cell, "patient_id"], dropna=False).mean()
    found = patient.groupby(cell, dropna=False).agg(value="mean", n_patients="size").reset_index()
    return found.assign(n_objects=1)


def _averages(rows: pd.DataFrame, means: pd.DataFrame) -> pd.DataFrame:
    """Return one value per design: the mean over objects of the paper's means, over all data sets."""
    cell = [*APART, *DESIGN_FACTORS]
    keys = [factor for factor in cell if factor in means]
    found = means.groupby(keys, dropna=False).agg(value=("value", "mean"), n_objects=("value", "count"))
    patients = len(rows[["data_set", "patient_id"]].drop_duplicates())
    names = ", ".join(sorted(means["data_set"].unique()))
    return (
        found.reset_index()
        .reindex(columns=[*cell, "value", "n_objects"])
        .assign(data_set=names, n_patients=patients)
    )


def comparable_with_sam2(table: pd.DataFrame, study_data_sets: Collection[str] = ()) -> pd.DataFrame:
    """Return published numbers of SAM 2 with what a results table has beside them.

    Parameters
    ----------
    table : DataFrame
        The tidy table; its 3D rows count.
    study_data_sets : collection of str
        Names in the table of the study's own data sets. The study's means over data sets are compared with
        these only, pooled as the paper pools; without any they are left out.

    Returns
    -------
    DataFrame
        Columns `COMPARABLE_COLUMNS`: a line per published number, data set and model for which the table has
        the object in that modality and metric. Where the publication does not state prompt, slice or
        direction (`not_stated`), all the table's designs that fit are meant: their mean, and the lowest and
        highest of them. Empty where nothing is comparable.
    """
    rows = check_table(table[table["task"] == "3d"]).drop(columns="failed")
    of_study = rows[rows["data_set"].isin(list(study_data_sets)) & (rows["metric"] == "iou")]
    means = paper_means(of_study) if len(of_study) else of_study
    found = []
    for _, row in sam2_table().iterrows():
        if pd.isna(row["object"]):
            values = _averages(of_study, _of_design(means, row)) if len(of_study) else pd.DataFrame()
        else:
            values = _objects(_of_design(rows, row), row)
        if values.empty:
            continue
        kept = ["data_set", *APART]
        beside = values.groupby(kept, dropna=False).agg(
            n_designs=("value", "count"),
            measured_mean=("value", "mean"),
            measured_lowest=("value", "min"),
            measured_highest=("value", "max"),
            n_objects=("n_objects", "max"),
            n_patients=("n_patients", "max"),
        )
        stated = {
            "source": row["source"],
            "object": row["object"],
            "metric": row["metric"],
            "published": row["value"],
            "published_sd": row["sd"],
            "published_n": row["n"],
            "published_unit": row["unit"],
            "read_from": row["read_from"],
            "verified": "unverified" not in row["read_from"],
            "not_stated": ", ".join(f.replace("_", " ") for f in DESIGN if pd.isna(row[f])),
        }
        found.append(beside.reset_index().assign(**stated))
    both = pd.concat(found, ignore_index=True) if found else pd.DataFrame()
    return both.reindex(columns=COMPARABLE_COLUMNS)
