"""Depth and slice-to-slice change told apart: paired contrasts between cells of a factorial design.

The cells of the design are volumes of one patient that differ in the number of their slices and in the
distance between them. Slices at the same distance from the prompt, in mm, are then the same slices.
"""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from medsam_nb.statistics.declarations import Comparison
from medsam_nb.statistics.findings import finding
from medsam_nb.statistics.paired import BRIEF_COLUMNS, assess, corrected, joined, summarise
from medsam_nb.statistics.pairing import by_patient
from medsam_nb.statistics.pooling import check_table, of_metric, refuse_mixture

CELL = ["n_slices", "spacing_z_mm"]
PLACE = ["data_set", "modality", "patient_id", "case_id", "object"]
CONTRAST_COLUMNS = ["family", *BRIEF_COLUMNS]


def slices_of(table: pd.DataFrame, metric: str = "iou") -> pd.DataFrame:
    """Return the 3D rows of slices with a distance from the prompt, values as plain numbers.

    Raises
    ------
    InputError
        If the rows mix models, memories or protocols.
    """
    rows = of_metric(check_table(table[table["task"] == "3d"]), metric)
    refuse_mixture(rows, [])
    rows = rows[rows["distance_slices"].notna()]
    numbers = {"value": float, "distance_slices": int, "slice_index": int, "n_slices": int}
    return rows.astype(numbers | {"distance_mm": float, "spacing_z_mm": float})


def losses(table: pd.DataFrame, metric: str = "iou") -> pd.DataFrame:
    """Return what every object loses on the way from its prompted slices.

    Parameters
    ----------
    table : DataFrame
        The tidy table. Designs are averaged over.

    Returns
    -------
    DataFrame
        A row per object of a case: `data_set`, `modality`, `patient_id`, `case_id`, `object`, `n_slices`,
        `spacing_z_mm`, `prompted` and `propagated` (means over slices with a prompt and without), `loss`
        (prompted minus propagated). Objects without a propagated slice are left out.
    """
    rows = slices_of(table, metric)
    side = rows["distance_slices"].eq(0).map({True: "prompted", False: "propagated"})
    grouped = rows.assign(side=side).groupby([*PLACE, *CELL, "side"])["value"].mean().unstack("side")
    found = grouped.reindex(columns=["prompted", "propagated"]).dropna().reset_index()
    return found.assign(loss=found["prompted"] - found["propagated"]).rename_axis(columns=None)


def slice_losses(table: pd.DataFrame, same_patients: Sequence[str] = (), metric: str = "iou") -> pd.DataFrame:
    """Return what every propagated slice has lost of the quality on the prompted slices of its object.

    Parameters
    ----------
    table : DataFrame
        The tidy table.
    same_patients : sequence of str
        Data sets that show the same patients under the same names; in all others names are their own.

    Returns
    -------
    DataFrame
        Rows of slices with `loss`, `steps` (slices from the prompt), `patient` and `stratum` (the data set,
        or one name for those with the same patients): what `explained.explained` reads.
    """
    rows = slices_of(table, metric)
    place = [*PLACE, *CELL]
    start = rows[rows["distance_slices"] == 0].groupby(place)["value"].mean().rename("prompted")
    rows = rows[rows["distance_slices"] != 0].merge(start.reset_index(), on=place)
    shared = rows["data_set"].isin(list(same_patients))
    stratum = rows["data_set"].where(~shared, "same anatomy").astype(str)
    return rows.assign(
        loss=rows["prompted"] - rows["value"],
        steps=rows["distance_slices"].abs(),
        stratum=stratum,
        patient=stratum + "/" + rows["patient_id"].astype(str),
    )


def cell_means(found: pd.DataFrame, value: str = "propagated") -> pd.DataFrame:
    """Return the mean of every cell over patients, with its interval (`paired.summarise`).

    Parameters
    ----------
    found : DataFrame
        Of `losses`.
    value : {"propagated", "prompted", "loss"}
    """
    place = ["data_set", "patient_id", "case_id", *CELL]
    cases = found.groupby(place)[value].mean().rename("value").reset_index()
    return summarise(cases, CELL).sort_values(CELL).reset_index(drop=True)


def contrasts(pairs: Mapping[tuple[str, str], pd.DataFrame], noun: str = "patient") -> pd.DataFrame:
    """Return the mean paired difference of every contrast, corrected by Holm within each family.

    Parameters
    ----------
    pairs : mapping of (family, name) to DataFrame
        A row per patient: `data_set`, `patient_id`, `a`, `b`.

    Returns
    -------
    DataFrame
        Columns `CONTRAST_COLUMNS`; `difference` is a minus b.
    """
    rows, intervals = [], []
    for (family, name), values in pairs.items():
        comparison = Comparison(name=name, a={}, b={}, family=family)
        row, interval = assess(values, comparison, noun)
        rows.append({"family": family, "comparison": name, "level": "", **row})
        intervals.append(interval)
    if not rows:
        return pd.DataFrame(columns=CONTRAST_COLUMNS)
    result = corrected(rows, intervals)
    said = [finding("!=", row, Comparison.margin, True) for row in result.to_dict("records")]
    result["finding"] = [what for what, _ in said]
    result["note"] = [joined(note, why) for note, (_, why) in zip(result["note"], said, strict=True)]
    return result[CONTRAST_COLUMNS]


def depth_pairs(table: pd.DataFrame, metric: str = "iou") -> dict[tuple[str, str], pd.DataFrame]:
    """Return the pairs of the factorial contrasts of depth: the mean of propagated slices, by patient.

    Four families, each between two cells of the same patient:

    * same extent, more slices: cells as long in mm, with more and thinner slices against fewer;
    * same distance, longer object: most slices against fewest;
    * same number of slices, farther apart: the greatest distance against the smallest;
    * same slices, in the longest volume against alone: only slices that both volumes have.
    """
    found, rows = losses(table, metric), slices_of(table, metric)
    cells = sorted(map(tuple, found[CELL].drop_duplicates().itertuples(index=False)))
    counts, spacings = sorted({count for count, _ in cells}), sorted({mm for _, mm in cells})
    pairs: dict[tuple[str, str], pd.DataFrame] = {}
    for few, many, extent in _same_extent(cells):
        name = f"{many[0]} slices against {few[0]} over {extent:g} mm"
        pairs["same extent, more slices", name] = _paired(found, many, few)
    for mm in spacings if len(counts) > 1 else ():
        many, few = (counts[-1], mm), (counts[0], mm)
        name = f"{many[0]} slices against {few[0]}, {mm:g} mm apart"
        pairs["same distance, longer object", name] = _paired(found, many, few)
    for count in counts if len(spacings) > 1 else ():
        far, near = (count, spacings[-1]), (count, spacings[0])
        name = f"{count} slices {far[1]:g} mm apart against {near[1]:g} mm"
        pairs["same number of slices, farther apart", name] = _paired(found, far, near)
    for mm in spacings if len(counts) > 1 else ():
        name = f"the {counts[0]} slices {mm:g} mm apart within {counts[-1]} against alone"
        pairs["same slices, cut out or not", name] = _cropped(rows, (counts[-1], mm), (counts[0], mm))
    return {key: values for key, values in pairs.items() if len(values)}


def _same_extent(cells: Sequence[tuple[int, float]]) -> Iterator[tuple[tuple, tuple, float]]:
    for few in cells:
        for many in cells:
            extent = (few[0] - 1) * few[1]
            if many[0] > few[0] and abs((many[0] - 1) * many[1] - extent) < 1e-6 * extent:
                yield few, many, extent


def _in_cell(rows: pd.DataFrame, cell: tuple[int, float]) -> pd.DataFrame:
    return rows[(rows["n_slices"] == cell[0]) & (rows["spacing_z_mm"] == cell[1])]


def _matched(a: pd.DataFrame, b: pd.DataFrame, on: Sequence[str], value: str) -> pd.DataFrame:
    """Return a and b of every patient: matched on columns, averaged within objects, then over them."""
    sides = [side.groupby(list(on))[value].mean() for side in (a, b)]
    both = pd.concat([sides[0].rename("a"), sides[1].rename("b")], axis=1, join="inner").reset_index()
    place = ["data_set", "patient_id", "object"]
    objects = both.groupby(place)[["a", "b"]].mean().reset_index()
    return by_patient(objects.assign(case_id=objects["patient_id"]))


def _paired(found: pd.DataFrame, a: tuple[int, float], b: tuple[int, float]) -> pd.DataFrame:
    place = ["data_set", "patient_id", "object"]
    return _matched(_in_cell(found, a), _in_cell(found, b), place, "propagated")


def _cropped(rows: pd.DataFrame, a: tuple[int, float], b: tuple[int, float]) -> pd.DataFrame:
    rows = rows[rows["distance_slices"] != 0]
    place = ["data_set", "patient_id", "object", "distance_slices"]
    return _matched(_in_cell(rows, a), _in_cell(rows, b), place, "value")


def modality_pairs(
    table: pd.DataFrame, reference: str, value: str = "loss", metric: str = "iou"
) -> dict[tuple[str, str], pd.DataFrame]:
    """Return, for every other modality, the pairs with the reference: the same anatomy in both.

    Parameters
    ----------
    table : DataFrame
        The tidy table of data sets that show the same patients, under the same names, in a modality each.
    reference : str
        A modality, as the table names it.
    value : {"loss", "propagated", "prompted"}
        Of `losses`.
    """
    found = losses(table, metric).assign(data_set="same anatomy")
    place = ["data_set", "patient_id", "object"]
    sides, said = dict(list(found.groupby("modality"))), reference.removeprefix("simulated ")
    return {
        ("modality", f"{name.removeprefix('simulated ')} against {said}"): _matched(
            side, sides[reference], place, value
        )
        for name, side in sides.items()
        if name != reference and reference in sides
    }
