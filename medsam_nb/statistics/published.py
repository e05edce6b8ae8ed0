"""Published numbers, and measured ones beside them.

SAM's per-object results come from the first study's release (`reference_data/CITATION.md`); what is public of
SAM 2 is in `published_sam2`.
"""

from collections.abc import Mapping
from importlib.resources import files

import pandas as pd

from medsam_nb.protocol.table import as_table
from medsam_nb.statistics.paired import compare
from medsam_nb.statistics.released_scripts import paper_means

CITATION = (
    "Mazurowski et al., Segment anything model for medical image analysis: an experimental study, "
    "Medical Image Analysis 89 (2023) 102918 (result tables: Apache-2.0)"
)
MODEL = "sam_vit_h_published"
# Names of the published objects that other sources write differently.
SAME_DATA_SET = {"usvariantumor": "usovariantumor", "ctorgan": "ctorg"}
SAME_OBJECT = {
    "sp": "spinalcord",
    "sc": "spinalcord",
    "gm": "greymatter",
    "graymatter": "greymatter",
    "gd": "enhancingtumour",
    "enhancingtumor": "enhancingtumour",
    "core": "tumourcore",
    "tumorcore": "tumourcore",
    "oedema": "edema",
    "fgt": "fibroglandulartissue",
    "lungs": "lung",
    "kidneys": "kidney",
    "bones": "bone",
}


def sam_table() -> pd.DataFrame:
    """Return SAM's published results as a tidy table.

    One row per object, prompt and mask choice: `data_set` and `object` are the parts of the
    published name ("CT-Organ: Lung"), `case_id` is "all slices", `model` "sam_vit_h_published".
    """
    path = files("medsam_nb.statistics") / "reference_data" / "sam1_published.csv"
    with path.open(encoding="utf-8") as file:
        published = pd.read_csv(file)
    parts = published["object"].str.partition(": ")
    return as_table(
        pd.DataFrame(
            {
                "task": "2d",
                "data_set": parts[0],
                "modality": parts[0].str.partition("-")[0],
                "case_id": "all slices",
                "object": parts[2].where(parts[2] != "", parts[0]),
                "model": MODEL,
                "prompt": published["prompt"],
                "mask_choice": published["mask_choice"],
                "metric": "iou",
                "value": published["iou"],
            }
        )
    )


_FIRST = {"mask_choice": "first_mask"}
PUBLISHED_COMPARISONS = [
    {
        "name": "one box against one point",
        "vary": "prompt",
        "a": "one_box",
        "b": "one_point",
        "where": _FIRST,
    },
    {
        "name": "box against point, per component",
        "vary": "prompt",
        "a": "box_per_component",
        "b": "point_per_component",
        "where": _FIRST,
    },
    {
        "name": "a point per component against one point",
        "vary": "prompt",
        "a": "point_per_component",
        "b": "one_point",
        "where": _FIRST,
    },
    {
        "name": "a box per component against one box",
        "vary": "prompt",
        "a": "box_per_component",
        "b": "one_box",
        "where": _FIRST,
    },
    {
        "name": "one box over all against one box",
        "vary": "prompt",
        "a": "box_over_all",
        "b": "one_box",
        "where": _FIRST,
    },
    *(
        {
            "name": f"oracle against first mask, {prompt.replace('_', ' ')}",
            "vary": "mask_choice",
            "a": "oracle_channel",  # the published rule
            "b": "first_mask",
            "where": {"prompt": prompt},
        }
        for prompt in ("one_point", "point_per_component", "one_box", "box_per_component")
    ),
]


def compare_published() -> pd.DataFrame:
    """Return the comparisons of SAM's published results; the object is the unit, one Holm family."""
    declared = [item | {"unit": "object", "family": "published SAM"} for item in PUBLISHED_COMPARISONS]
    return compare(sam_table(), declared)


def _plain(name: str) -> str:
    return "".join(character for character in str(name).lower() if character.isalnum())


def measured_against_published(
    table: pd.DataFrame, names: Mapping[tuple[str, str], str] | None = None
) -> pd.DataFrame:
    """Return the user's 2D results beside SAM's published ones, object by object.

    Parameters
    ----------
    table : DataFrame
        The tidy table; its rows of 2D with the first mask, and of the oracle by the published rule
        ("oracle_channel"), are pooled as in the paper.
    names : mapping of (data_set, object) to published object, optional
        Which published object a row is, where the names do not say so themselves. They do where
        data set and object are spelt alike, letters and digits only; where a data set has a single
        object in both tables, the name of the data set is enough.

    Returns
    -------
    DataFrame
        Columns `published_object`, `data_set`, `object`, `model`, `prompt`, `mask_choice`,
        `measured`, `published`, `difference`, `n_cases`, `n_slices`; empty without a match.
    """
    published = sam_table()
    keys, single = {}, {}
    for (data_set, name), _ in published.groupby(["data_set", "object"]):
        place = SAME_DATA_SET.get(_plain(data_set), _plain(data_set))
        full = data_set if name == data_set else f"{data_set}: {name}"
        keys[place, SAME_OBJECT.get(_plain(name), _plain(name))] = full
        single[place] = None if place in single else full

    def match(data_set: str, name: str) -> str | None:
        if names and (data_set, name) in names:
            return names[data_set, name]
        place = SAME_DATA_SET.get(_plain(data_set), _plain(data_set))
        thing = SAME_OBJECT.get(_plain(name), _plain(name))
        return keys.get((place, thing)) or (single.get(place) if alone[data_set] else None)

    columns = ["published_object", "data_set", "object", "model", "prompt", "mask_choice", "measured"]
    columns += ["published", "difference", "n_cases", "n_slices"]
    means = paper_means(
        table[(table["task"] == "2d") & table["mask_choice"].isin(["first_mask", "oracle_channel"])]
    )
    alone = (means.groupby("data_set")["object"].nunique() <= 1).to_dict()
    means["published_object"] = [
        match(d, o) for d, o in zip(means["data_set"], means["object"].fillna(""), strict=True)
    ]
    published = published.assign(
        published_object=published["data_set"].where(
            published["data_set"] == published["object"], published["data_set"] + ": " + published["object"]
        )
    )
    joined = means.dropna(subset=["published_object"]).merge(
        published[["published_object", "prompt", "mask_choice", "value"]].rename(
            columns={"value": "published"}
        ),
        on=["published_object", "prompt", "mask_choice"],
    )
    joined = joined.rename(columns={"value": "measured"}).astype({"published": float})
    return joined.assign(difference=joined["measured"] - joined["published"])[columns]
