"""Measures of the miniature models on data that training never saw, by the workbook's own evaluation.

Cases (`model_cases`) become rows by `evaluate_2d` and `predict_3d`, as in the notebooks: points, boxes and
mask choices mean the same here.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from medsam_nb.errors import InputError
from medsam_nb.evaluation.rows import evaluate_2d
from medsam_nb.evaluation.single_slices import candidates
from medsam_nb.figures import grids, slices, style
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.models.checkpoints import Model, load_model, read_weights
from medsam_nb.protocol.designs import Design, prompted_slices
from medsam_nb.protocol.metrics import dice, iou
from medsam_nb.protocol.prompts import Prompt, tight_box
from medsam_nb.protocol.volume import Case
from medsam_nb.provenance import project_root
from medsam_nb.workbook import pictures
from training import report_cases
from training.weights import denormals_as_zero

SEED = 20240801
DESIGN = Design("centre_slice", "one_box", "bidirectional", "most_confident_mask")
FRONT_TO_END = replace(DESIGN, direction="front_to_end")
NEAR_SLICES = 2
LARGE_SHARE = 0.003  # of a slice


def _over_all(model: Model, case: Case) -> Iterator[dict]:
    """Yield rows of first masks for one box over the whole object, also where it has several components.

    The study left this mode of its predecessor out; for an object in many pieces, such as a tissue, it
    is the only box that means the object.
    """
    calls = {}
    for name in case.objects:
        mask = case.mask(name)
        for z in np.flatnonzero(mask.any((1, 2))):
            calls[name, int(z)] = int(z), Prompt(box=tight_box(mask[z]))
    common = {
        "data_set": case.data_set,
        "case_id": case.case_id,
        "prompt": "box_over_all",
        "mask_choice": "first_mask",
    }
    for (name, z), masks, _ in candidates(model, case.slices_uint8(), calls):
        yield common | {"object": name, "slice_index": z, "value": iou(case.mask(name)[z], masks[0])}


def scores_2d(model: Model, cases: Sequence[Case], label: str) -> pd.DataFrame:
    """Return rows of the tidy table: one box, one point, one box over all; `compact` for every mask."""
    tables = []
    for case in tqdm(cases, desc=f"{model.name}, {label}"):
        table = pd.DataFrame(
            [*evaluate_2d(model, case, ["one_box", "one_point"], seed=SEED), *_over_all(model, case)]
        )
        masks = [case.mask(row.object)[row.slice_index] for row in table.itertuples()]
        tables.append(table.assign(compact=list(map(report_cases.is_compact, masks))))
    return pd.concat(tables, ignore_index=True)


def scores_3d(model: Model, cases: Sequence[Case], label: str) -> pd.DataFrame:
    """Return one line per object, a box on its centre slice carried both ways (`DESIGN`).

    Columns: IoU of the `prompted` slice, mean IoU over the other slices with the object (`propagated`), and
    the same where the volume is tracked from its first slice to its last (`front_to_end`); over those
    within two slices (`near`) and beyond (`far`), over those of which the object covers at least 0.3 %
    (`large`), `dice` of the volume, the number of slices without the object (`absent`) and how many of
    them stay empty (`absent_empty`).
    """
    lines = []
    for case in tqdm(cases, desc=f"{model.name}, {label}"):
        (name,) = case.objects
        truth = case.mask(name)
        found = pictures.predict_3d(model, case, name, DESIGN, seed=SEED)
        one_way = pictures.predict_3d(model, case, name, FRONT_TO_END, seed=SEED)
        (centre,) = prompted_slices(truth.sum((1, 2)), DESIGN.frame_choice)
        ious = {int(z): iou(truth[z], found[z]) for z in np.flatnonzero(truth.any((1, 2)))}
        others = {z: value for z, value in ious.items() if z != centre}
        near = [value for z, value in others.items() if abs(z - centre) <= NEAR_SLICES]
        far = [value for z, value in others.items() if abs(z - centre) > NEAR_SLICES]
        large = [value for z, value in others.items() if truth[z].mean() >= LARGE_SHARE]
        absent = ~truth.any((1, 2))
        lines.append(
            {
                "data_set": case.data_set,
                "case_id": case.case_id,
                "object": name,
                "prompted": ious[centre],
                "propagated": float(np.mean([*others.values()])),
                "front_to_end": float(np.mean([iou(truth[z], one_way[z]) for z in others])),
                "near": float(np.mean(near)) if near else np.nan,
                "far": float(np.mean(far)) if far else np.nan,
                "large": float(np.mean(large)) if large else np.nan,
                "dice": dice(truth, found),
                "absent": int(absent.sum()),
                "absent_empty": int((absent & ~found.any((1, 2))).sum()),
            }
        )
    return pd.DataFrame(lines)


def summarise(tables: dict[str, pd.DataFrame]) -> dict[str, float]:
    """Return the headline numbers of one model: means over masks (2D) or objects (3D)."""
    numbers: dict[str, float] = {}
    for name, table in tables.items():
        if name.endswith("_3d"):
            numbers[f"{name} objects"] = len(table)
            for column in ("prompted", "propagated", "front_to_end", "near", "far", "large", "dice"):
                numbers[f"{name} {column}"] = table[column].mean()
            numbers[f"{name} propagated, standard error"] = table.propagated.sem()
            numbers[f"{name} absent slices empty"] = table.absent_empty.sum() / max(1, table.absent.sum())
            continue
        cells = {
            "box over all first": table.prompt == "box_over_all",
            "box first": (table.prompt == "one_box") & (table.mask_choice == "first_mask"),
            "point first": (table.prompt == "one_point") & (table.mask_choice == "first_mask"),
            "point most confident": (table.prompt == "one_point")
            & (table.mask_choice == "most_confident_mask"),
            "point best of three": (table.prompt == "one_point") & (table.mask_choice == "oracle_mask"),
        }
        box = table[cells["box first"]]
        if name == "mni152":
            over_all = table[cells["box over all first"]].groupby("object").value.mean()
            numbers |= {f"{name} {key} box over all first": mean for key, mean in over_all.items()}
            numbers |= {
                f"{name} {key} box first": mean for key, mean in box.groupby("object").value.mean().items()
            }
            continue
        numbers[f"{name} masks"] = len(box)
        numbers |= {f"{name} {key}": table[cell].value.mean() for key, cell in cells.items()}
        numbers[f"{name} box first, compact"] = box[box.compact].value.mean()
        where = ["data_set", "case_id", "slice_index"]
        for unit, keys in (("slices", where), ("cases", where[:2])):
            numbers[f"{name} box first, mean over {unit}"] = box.groupby(keys).value.mean().mean()
    return {key: round(float(value), 4) for key, value in numbers.items()}


def _pictures(model: Model, groups: dict[str, Sequence[Case]]) -> list[slices.Panel]:
    """Return some panels of each group, spread over it: a box on a slice in 2D."""
    shown = []
    for cases in groups.values():
        spread = np.unique(np.linspace(0, len(cases) - 1, 10).round().astype(int)) if len(cases) else []
        shown += [pictures.panel_2d(model, cases[i], "one_box", seed=SEED) for i in spread]
    return shown


def _save_pictures(pictures: Sequence[slices.Panel], out: Path, name: str) -> None:
    with style.style():
        figure, plotted = grids.grid(pictures, columns=5)
        style.save(figure, out, name, plotted)


def _measure(
    model: Model, slices: dict[str, Sequence[Case]], volumes: dict[str, Sequence[Case]], out: Path
) -> dict[str, pd.DataFrame]:
    """Return the tables of one model by group of cases; write them and the overlays."""
    tables = {group: scores_2d(model, cases, group) for group, cases in slices.items()}
    _save_pictures(_pictures(model, slices), out, f"{model.name}_overlays_2d")
    if model.family == "sam2":
        tables |= {group: scores_3d(model, cases, group) for group, cases in volumes.items()}
        shown = [cases[len(cases) // 2] for cases in volumes.values()]
        tracked = [p for c in shown for p in pictures.panels_3d(model, c, [*c.objects][0], DESIGN, seed=SEED)]
        _save_pictures(tracked, out, f"{model.name}_overlays_3d")
    for group, table in tables.items():
        table.to_csv(out / f"{model.name}_{group}.csv", index=False)
    return tables


@denormals_as_zero()  # as in training
def report(
    out: Path, *, images: int = 70, objects: int = 100, weights: Path | None = None, only: str | None = None
) -> dict:
    """Measure the miniatures; print the numbers, write `results.json`, the tables and overlays.

    Parameters
    ----------
    out : Path
        Folder for the results.
    images, objects : int
        Simulated images (2D) and objects (3D).
    weights : Path, optional
        Weights of the model `only`, instead of the shipped ones.
    only : str, optional
        Measure one model: "miniature_sam2" or "miniature_sam".

    Raises
    ------
    InputError
        If `weights` is given without `only`.
    """
    if weights and not only:
        raise InputError(weights, "belongs to no model that was named.", "Say which: --only miniature_sam2.")
    root, out = project_root(), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    pool = report_cases.held_out_pool(out / "pool_report.npy")
    manifest = load_manifest(root / "data_manifest.yaml")
    cases = report_cases.real_cases(manifest, root / "data" / "prepared")
    slices = {
        "simulated_2d": list(report_cases.simulated_slices(pool, images)),
        "mni152": [report_cases.template()],
    }
    volumes = {"simulated_3d": list(report_cases.simulated_volumes(pool, objects))}
    if cases:
        slices["real_2d"] = list(report_cases.real_slices(cases))
        volumes["real_3d"] = list(report_cases.real_volumes(cases))
    else:
        print("real cases: not measured; `medsam-nb run studies/samples.yaml` prepares them")
    results = {"date": time.strftime("%Y-%m-%d"), "real cases": len(cases), "models": {}}
    for name in [only] if only else ["miniature_sam2", "miniature_sam"]:
        model = load_model(manifest.checkpoint(name), Path(), device="cpu")
        if weights:
            model.network.load_state_dict(read_weights(weights))
        with pictures.one_thread():
            tables = _measure(model, slices, volumes, out)
        results["models"][name] = summarise(tables)
        print(f"\n{name}")
        for key, value in results["models"][name].items():
            print(f"  {key:<42} {value:8.3f}")
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results
