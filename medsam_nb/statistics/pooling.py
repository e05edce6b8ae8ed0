"""From rows to one value per unit: what counts, what is paired with what, and how it is averaged.

The unit of every inference is the patient; cases, objects and slices are averaged inside it. The order of
averaging is: slices of an object, designs that are compared alike, objects of a case, cases of a patient.
Where a table does not say whose images its cases are, every case is a patient of its own, and is called a
case. Nothing is imputed. A mask that could not be scored although the object is there counts as 0 and is
counted; a row without a value for any other reason is left out and counted.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields

import numpy as np
import pandas as pd

from medsam_nb.errors import InputError, StudyError
from medsam_nb.protocol.designs import parse_design
from medsam_nb.protocol.table import COLUMNS, FACTORS, KEY_COLUMNS, as_table

# Metrics between 0 and 1 in which a failed mask is a 0.
OVERLAPS = ("iou", "volume_iou", "volume_dice", "dice", "nsd")
# Averaging over these by accident would mix experiments: a selection has to name them if they vary.
NEVER_MIXED = ("task", "model", "mask_scope", "protocol", "frames", "prompt_source")
UNITS = {
    "patient": ["data_set", "patient_id"],
    "case": ["data_set", "case_id"],
    "object": ["data_set", "object"],
    "data_set": ["data_set"],
}
SLICES = ("all", "propagated", "prompted")


@dataclass(frozen=True)
class Comparison:
    """A comparison, declared before it is run.

    Attributes
    ----------
    name : str
    a, b : mapping of column to value or list of values
        The rows of either side. What they name is what differs; all else is matched.
    where : mapping
        Rows of both sides.
    family : str
        Comparisons of one family are corrected together.
    metric : str
    unit : {"patient", "case", "object", "data_set"}
    test : {"difference", "equivalence", "not_worse"}
        Wilcoxon signed-rank test; two one-sided tests against +-margin; one against -margin.
    alternative : {"two-sided", "greater", "less"}
        Of a against b; for "difference" only.
    margin : float
        In units of the metric.
    slices : {"all", "propagated", "prompted"}
        For rows of a slice: all, only those without, or only those with a prompt (3D).
    each : str
        A column: one comparison is made for each of its values. Empty for none.
    """

    name: str
    a: Mapping
    b: Mapping
    where: Mapping = field(default_factory=dict)
    family: str = "all"
    metric: str = "iou"
    unit: str = "patient"
    test: str = "difference"
    alternative: str = "two-sided"
    margin: float = 0.05
    slices: str = "all"
    each: str = ""

    def __post_init__(self) -> None:
        known = {
            "unit": tuple(UNITS),
            "test": ("difference", "equivalence", "not_worse"),
            "alternative": ("two-sided", "greater", "less"),
            "slices": SLICES,
        }
        for key, values in known.items():
            if getattr(self, key) not in values:
                raise StudyError(
                    f"comparison {self.name!r}",
                    f"{key} is {getattr(self, key)!r}.",
                    f"Use {', '.join(values)}.",
                )
        unknown = {*self.a, *self.b, *self.where, *([self.each] if self.each else [])} - set(COLUMNS)
        if unknown:
            raise StudyError(
                f"comparison {self.name!r}",
                f"unknown columns {', '.join(sorted(unknown))}.",
                f"Known: {', '.join(COLUMNS)}.",
            )
        if not self.margin > 0:
            raise StudyError(f"comparison {self.name!r}", "the margin is not positive.", "Try 0.05.")


def declare(item: Mapping | Comparison) -> Comparison:
    """Return a comparison from a row of a study's YAML.

    Parameters
    ----------
    item : mapping
        Fields of `Comparison`. Short form: ``vary: prompt, a: one_box, b: one_point`` stands for
        ``a: {prompt: one_box}, b: {prompt: one_point}``; ``task`` and ``model`` stand for entries
        of ``where``.

    Examples
    --------
    >>> item = {"name": "box", "task": "2d", "vary": "prompt", "a": "one_box", "b": "one_point"}
    >>> declare(item).a, declare(item).where
    ({'prompt': 'one_box'}, {'task': '2d'})
    """
    if isinstance(item, Comparison):
        return item
    item = dict(item)
    label = f"comparison {item.get('name', '(without a name)')!r}"
    for side in ("name", "a", "b"):
        if side not in item:
            raise StudyError(label, f"{side!r} is missing.", "A comparison needs name, a and b.")
    varied = item.pop("vary", None)
    where = dict(item.pop("where", {}))
    where |= {column: item.pop(column) for column in ("task", "model") if column in item}
    for side in ("a", "b"):
        if not isinstance(item[side], Mapping):
            if varied is None:
                raise StudyError(label, f"{side} is a plain value.", "Say in 'vary' of which column.")
            item[side] = {varied: item[side]}
    unknown = set(item) - {f.name for f in fields(Comparison)}
    if unknown:
        raise StudyError(
            label,
            f"unknown entries {', '.join(sorted(unknown))}.",
            f"Known: vary, task, model, {', '.join(f.name for f in fields(Comparison))}.",
        )
    return Comparison(where=where, **item)


def check_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with its types, failed masks set to 0, and a column `failed`.

    Rows without a value that are no failures (nothing to score, a distance that is not defined)
    are left out; their number is in ``attrs["missing"]``.

    Raises
    ------
    InputError
        If two rows have the same key, if a row names no data set, case or metric, or if a value
        is infinite or an overlap lies outside 0 to 1.
    """
    table = as_table(table)
    for column in ("data_set", "case_id", "metric"):
        if table[column].isna().any():
            raise InputError("results table", f"rows without {column!r}.", "Fill the column.")
    keys = [column for column in KEY_COLUMNS if column != "run_key"]
    repeated = table.duplicated(keys, keep=False)
    if repeated.any():
        first = table.loc[repeated, keys].iloc[0].dropna().to_dict()
        raise InputError(
            "results table",
            f"{int(repeated.sum())} rows share their keys with others, the first of them {first}.",
            "Keep one row per value; rows of two runs must differ in a key column.",
        )
    value = table["value"].astype("float64").to_numpy(na_value=np.nan)
    overlap = table["metric"].isin(OVERLAPS).to_numpy()
    wrong = np.isinf(value) | (overlap & ((value < 0) | (value > 1)))
    if wrong.any():
        first = table.loc[wrong, [*keys, "value"]].iloc[0].dropna().to_dict()
        raise InputError("results table", f"impossible values, the first in {first}.", "Compute it again.")
    table = table.assign(patient_id=table["patient_id"].fillna(table["case_id"]))
    absent = table["truth_px"].eq(0).fillna(False).to_numpy(dtype=bool)
    failed = np.isnan(value) & overlap & ~absent
    table = table.assign(value=pd.array(np.where(failed, 0.0, value), "Float64"), failed=failed)
    kept = ~(np.isnan(value) & ~failed)
    checked = table[kept].reset_index(drop=True)
    checked.attrs = {"missing": int((~kept).sum()), "failed": int(failed.sum())}
    return checked


def select(table: pd.DataFrame, choice: Mapping) -> pd.DataFrame:
    """Return the rows in which every named column has the value, or one of the values."""
    for column, wanted in choice.items():
        wanted = list(wanted) if isinstance(wanted, list | tuple | set) else [wanted]
        table = table[table[column].isin(wanted)]
    return table


def rows_of_design(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the 3D rows of one design, by its name (`designs.Design.name`)."""
    return select(table, {"task": "3d"} | asdict(parse_design(name)))


def _side(table: pd.DataFrame, comparison: Comparison, choice: Mapping) -> pd.DataFrame:
    rows = of_metric(select(table, {**comparison.where, **choice}), comparison.metric)
    if comparison.slices != "all" and rows["distance_slices"].notna().any():
        prompted = rows["distance_slices"].eq(0).fillna(False)
        rows = rows[prompted if comparison.slices == "prompted" else ~prompted]
    for column in NEVER_MIXED:
        values = sorted(rows[column].dropna().unique())
        if len(values) > 1:
            raise InputError(
                f"comparison {comparison.name!r}",
                f"one side mixes {column} {', '.join(values)}.",
                f"Name one of them under 'where', or set 'each: {column}'.",
            )
    return rows


@dataclass(frozen=True, eq=False)
class Pairs:
    """Two values per unit, and what was counted on the way.

    Attributes
    ----------
    values : DataFrame
        Columns `data_set`, those of the unit, `a`, `b`, `n_cases`; one row per unit that has both.
    unit : str
        "patient", or "case" where every patient has one; or as declared.
    unpaired : int
        Units that have only one side.
    failed_a, failed_b : int
        Masks that failed and count as 0.
    designs : int
        Combinations of the remaining factors that were matched and averaged.
    """

    values: pd.DataFrame
    unit: str
    unpaired: int
    failed_a: int
    failed_b: int
    designs: int


def paired_values(table: pd.DataFrame, comparison: Comparison) -> Pairs:
    """Match the two sides row by row, and average what is matched to one pair per unit.

    Rows are matched on data set, case, object, slice and on every factor that has values on both
    sides and is not what differs. A factor that exists on one side only (the frame choice, between
    2D and 3D) is averaged over.

    Parameters
    ----------
    table : DataFrame
        As `check_table` returns it.
    comparison : Comparison
    """
    sides = [_side(table, comparison, choice) for choice in (comparison.a, comparison.b)]
    differs = {*comparison.a, *comparison.b}
    factors = [
        column
        for column in FACTORS
        if column not in differs and all(side[column].notna().any() for side in sides)
    ]
    case = ["data_set", "patient_id", "case_id"]
    index = [*case, "object", *factors, "slice_index"]
    a, b = (
        side.astype({"value": "float64"}).groupby(index, dropna=False, sort=False)["value"].mean()
        for side in sides
    )
    both = pd.concat([a.rename("a"), b.rename("b")], axis=1, join="inner").reset_index()
    unit = UNITS[comparison.unit]
    present = [set(map(tuple, side[unit].drop_duplicates().itertuples(index=False))) for side in sides]
    means = both
    for kept in (
        [*case, "object", *factors],
        [*case, "object"],
        *([case, UNITS["patient"]] if comparison.unit not in ("object", "case") else []),
        *([["data_set", "patient_id", "object"]] if comparison.unit == "object" else []),
        unit,
    ):
        means = means.groupby(kept, dropna=False, sort=True)[["a", "b"]].mean().reset_index()
    counted = both[[*unit, "case_id"]].drop_duplicates().groupby(unit, dropna=False).size()
    means = means.merge(counted.rename("n_cases").reset_index(), on=unit, how="left")
    own = (both["patient_id"] == both["case_id"]).all()
    paired = set(map(tuple, means[unit].itertuples(index=False)))
    return Pairs(
        values=means,
        unit="case" if comparison.unit == "patient" and own else comparison.unit,
        unpaired=len((present[0] | present[1]) - paired),
        failed_a=int(sides[0]["failed"].sum()),
        failed_b=int(sides[1]["failed"].sum()),
        designs=len(both[factors].drop_duplicates()) if factors else int(len(both) > 0),
    )


def of_metric(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the rows of a metric; the Dice of a slice follows from its IoU, as 2 IoU / (1 + IoU)."""
    found = rows[rows["metric"] == metric]
    if metric == "dice" and found.empty:
        found = rows[(rows["metric"] == "iou") & rows["slice_index"].notna()]
        found = found.assign(metric="dice", value=2 * found["value"] / (1 + found["value"]))
    return found


def patient_means(cases: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return one value per patient and cell: the mean over a patient's cases.

    Parameters
    ----------
    cases : DataFrame
        Of `case_means`.
    by : list of str
        Columns that tell cells apart.

    Returns
    -------
    DataFrame
        Columns `data_set`, `patient_id`, those of `by`, `value`, `n_cases`.
    """
    place = ["data_set", "patient_id", *[column for column in by if column != "data_set"]]
    means = cases.groupby(place, dropna=False, sort=True)["value"].agg(["mean", "size"])
    return means.reset_index().rename(columns={"mean": "value", "size": "n_cases"})


def refuse_mixture(rows: pd.DataFrame, by: Collection[str]) -> None:
    """Raise InputError if the rows mix experiments that are not kept apart by the columns `by`."""
    for column in NEVER_MIXED:
        if column not in by and rows[column].nunique() > 1:
            raise InputError(
                "results table",
                f"{column} has several values ({', '.join(sorted(rows[column].dropna().unique()))}).",
                f"Select one, or keep {column!r} apart.",
            )


def case_means(table: pd.DataFrame, by: list[str] | None = None, metric: str = "iou") -> pd.DataFrame:
    """Return one value per case and cell: the mean over slices, then over objects.

    Parameters
    ----------
    table : DataFrame
        The tidy table.
    by : list of str
        Columns that tell cells apart; by default every factor of `FACTORS`. Factors that are not
        named are averaged over, except those that must never be mixed.
    metric : str

    Returns
    -------
    DataFrame
        Columns `data_set`, `modality`, `patient_id`, `case_id`, those of `by`, `value`, `n_slices_scored`,
        `n_objects`, `failed`. `patient_means` averages the cases of a patient.
    """
    by = list(FACTORS) if by is None else list(by)
    rows = check_table(table)
    rows = of_metric(rows, metric).astype({"value": "float64"})
    refuse_mixture(rows, by)
    inner = [c for c in FACTORS if c not in by]
    case = ["data_set", "modality", "patient_id", "case_id"]
    objects = rows.groupby([*case, "object", *by, *inner], dropna=False, sort=False).agg(
        value=("value", "mean"), n_slices_scored=("value", "size"), failed=("failed", "sum")
    )
    alike = {"value": "mean", "n_slices_scored": "sum", "failed": "sum"}
    objects = objects.groupby([*case, "object", *by], dropna=False, sort=False).agg(alike).reset_index()
    return (
        objects.groupby([*case, *by], dropna=False, sort=True)
        .agg(
            value=("value", "mean"),
            n_slices_scored=("n_slices_scored", "sum"),
            n_objects=("object", "nunique"),
            failed=("failed", "sum"),
        )
        .reset_index()
    )
