"""Measures of the miniature models on data that training never saw, by the workbook's own evaluation.

Simulated images and volumes come from a part of the validation seeds that training does not watch; MNI152
is nilearn's template with nilearn's masks; real cases are those that the study `samples` has prepared and
whose masks are a truth to measure against. Everything becomes a `Case`, and cases become rows by
`evaluate_2d` and `predict_3d`, as in the notebooks: points, boxes and mask choices mean the same here.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from medsam_nb import examples, figures, panels, phantom
from medsam_nb import training_data as data
from medsam_nb.decode2d import candidates
from medsam_nb.designs import Design, prompted_slices
from medsam_nb.errors import InputError
from medsam_nb.evaluate import evaluate_2d
from medsam_nb.intensity import Intensity
from medsam_nb.manifest import Manifest, load_manifest
from medsam_nb.metrics import dice, iou
from medsam_nb.models import Model, load_model, read_weights
from medsam_nb.prepare import case_folders, load_case
from medsam_nb.project import project_root
from medsam_nb.prompts import Prompt, tight_box
from medsam_nb.volume import Case, Volume

SEED = 20240801
# Volumes 0..23 of the validation seeds are watched during training; the report starts here.
FIRST_REPORT_VOLUME = 1000
VOLUMES = 24
DESIGN = Design("centre_slice", "one_box", "bidirectional", "most_confident_mask")
FRONT_TO_END = replace(DESIGN, direction="front_to_end")
LEAST_PIXELS = 30  # a real object is scored on slices where it has as many
MOST_SLICES_2D, MOST_SLICES_3D = 6, 16  # of one real object
NEAR_SLICES = 2
LARGE_SHARE = 0.003  # of a slice
GREY = Intensity("window", 0.0, 1.0)


def is_compact(mask: np.ndarray) -> bool:
    """Return whether a 2D mask has one component, is not thin, and has a solidity of at least 0.7."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if len(outlines) != 1:
        return False
    depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5).max()
    hull = cv2.convexHull(outlines[0])
    solid = mask.sum() / max(1.0, cv2.contourArea(hull) + 0.5 * len(hull))
    return bool(depth >= 0.13 * np.sqrt(mask.sum()) and solid >= 0.7)


def _simulated(image: np.ndarray, mask: np.ndarray, data_set: str, case_id: str) -> Case:
    volume = Volume(np.asarray(image, np.float32), np.eye(4))
    return Case(data_set, case_id, "simulated", volume, mask.astype(np.uint8), {"target": (1,)}, GREY)


def simulated_slices(pool: data.Pool, images: int) -> Iterator[Case]:
    """Yield one single-slice case per target of random images of held-out volumes, 256 pixels."""
    for item in range(images):
        rng = np.random.default_rng([733, item])
        image, masks, _ = data.image_sample(pool, rng, data.SampleOptions(size=256))
        for number, mask in enumerate(masks):
            yield _simulated(image[None], mask[None], "simulated_2d", f"{item}-{number}")


def simulated_volumes(pool: data.Pool, objects: int) -> Iterator[Case]:
    """Yield one case of 16 slices per object; objects are compact on their centre slice."""
    found, item = 0, 0
    while found < objects:
        options = data.SampleOptions(size=256, slices=pool.labels.shape[1])
        images, masks, _ = data.video_sample(pool, np.random.default_rng([734, item]), options, objects=1)
        item += 1
        areas = masks[0].sum((1, 2))
        centre = masks[0][prompted_slices(areas, "centre_slice")[0]]
        if np.count_nonzero(areas) >= 3 and centre.sum() >= 80 and is_compact(centre):
            found += 1
            yield _simulated(images, masks[0], "simulated_3d", str(item - 1))


def template() -> Case:
    """Return six axial slices of nilearn's MNI152 template with its brain, grey and white matter masks.

    The masks overlap: each is a bit of the label map. They are wider than the tissues of the
    demonstration's case, where a voxel belongs to one tissue only.
    """
    from nilearn import datasets

    load = (datasets.load_mni152_brain_mask, datasets.load_mni152_gm_mask, datasets.load_mni152_wm_mask)
    slices = np.linspace(28, 62, 6).astype(int)

    def shown(image) -> np.ndarray:
        return image.get_fdata().transpose(2, 1, 0)[slices, ::-1]

    labels = sum((shown(mask(resolution=2)) > 0.5).astype(np.uint8) << bit for bit, mask in enumerate(load))
    objects = {
        name: tuple(value for value in range(8) if value >> bit & 1)
        for bit, name in enumerate(("brain", "grey_matter", "white_matter"))
    }
    image = np.ascontiguousarray(shown(datasets.load_mni152_template(resolution=2)), np.float32)
    volume = Volume(image, np.diag([2.0, 2.0, 2.0, 1.0]))
    return Case("mni152", "six_slices", "MRI T1 (template)", volume, np.ascontiguousarray(labels), objects)


def real_cases(manifest: Manifest, prepared_dir: Path) -> list[Case]:
    """Return prepared real cases with masks to measure against; none where `samples` was not run."""
    rows = [row for row in manifest.data_sets.values() if row.name.startswith("sample_") and row.accuracy]
    return [load_case(folder) for row in rows for folder in case_folders(prepared_dir, row.name)]


def _single(case: Case, name: str, slices: Sequence[int] | slice) -> Case:
    """Return a case with one object on some of its slices."""
    image, mask = case.image.array[slices], case.mask(name)[slices]
    # Grey levels are those of the whole volume: percentiles of a part would differ.
    grey = case.slices_uint8()[slices].astype(np.float32) / 255
    volume = Volume(grey.reshape(image.shape), case.image.affine)
    return Case(case.data_set, case.case_id, case.modality, volume, mask.astype(np.uint8), {name: (1,)}, GREY)


def real_slices(cases: Sequence[Case]) -> Iterator[Case]:
    """Yield every object of real cases on at most six slices, spread over it."""
    for case in cases:
        for name in case.objects:
            usable = np.flatnonzero(case.mask(name).sum((1, 2)) >= LEAST_PIXELS)
            if len(usable):
                spread = np.linspace(0, len(usable) - 1, MOST_SLICES_2D).round().astype(int)
                yield _single(case, name, usable[np.unique(spread)])


def real_volumes(cases: Sequence[Case]) -> Iterator[Case]:
    """Yield the two largest objects of real volumes, on at most sixteen slices around their centre."""
    for case in cases:
        by_size = sorted(case.objects, key=lambda name: -int(case.mask(name).sum()))
        for name in by_size[:2]:
            usable = np.flatnonzero(case.mask(name).sum((1, 2)) >= LEAST_PIXELS)
            if len(usable) >= 3:
                start = max(0, int(usable[len(usable) // 2]) - MOST_SLICES_3D // 2)
                yield _single(case, name, slice(start, start + MOST_SLICES_3D))


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
        "mask_choice": "first",
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
        tables.append(table.assign(compact=list(map(is_compact, masks))))
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
        found = examples.predict_3d(model, case, name, DESIGN, seed=SEED)
        one_way = examples.predict_3d(model, case, name, FRONT_TO_END, seed=SEED)
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
            "box first": (table.prompt == "one_box") & (table.mask_choice == "first"),
            "point first": (table.prompt == "one_point") & (table.mask_choice == "first"),
            "point most confident": (table.prompt == "one_point") & (table.mask_choice == "most_confident"),
            "point best of three": (table.prompt == "one_point") & (table.mask_choice == "oracle"),
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


def _pictures(model: Model, groups: dict[str, Sequence[Case]]) -> list[panels.Panel]:
    """Return some panels of each group, spread over it: a box on a slice in 2D."""
    shown = []
    for cases in groups.values():
        spread = np.unique(np.linspace(0, len(cases) - 1, 10).round().astype(int)) if len(cases) else []
        shown += [examples.panel_2d(model, cases[i], "one_box", seed=SEED) for i in spread]
    return shown


def _save_pictures(pictures: Sequence[panels.Panel], out: Path, name: str) -> None:
    with figures.style():
        figure, plotted = panels.grid(pictures, columns=5)
        figures.save(figure, out, name, plotted)


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
    torch.set_flush_denormal(True)  # as in training
    data.build_pool(out / "pool_report.npy", phantom.VALIDATION_SEED_BASE + FIRST_REPORT_VOLUME, VOLUMES)
    pool = data.open_pool(out / "pool_report.npy")
    manifest = load_manifest(root / "data_manifest.yaml")
    mni = template()
    cases = real_cases(manifest, root / "data" / "prepared")
    slices = {"simulated_2d": list(simulated_slices(pool, images)), "mni152": [mni]}
    volumes = {"simulated_3d": list(simulated_volumes(pool, objects))}
    if cases:
        slices["real_2d"], volumes["real_3d"] = list(real_slices(cases)), list(real_volumes(cases))
    else:
        print("real cases: not measured; `medsam-nb run studies/samples.yaml` prepares them")
    results = {"date": time.strftime("%Y-%m-%d"), "real cases": len(cases), "models": {}}
    for name in [only] if only else ["miniature_sam2", "miniature_sam"]:
        model = load_model(manifest.checkpoint(name), Path(), device="cpu")
        if weights:
            model.network.load_state_dict(read_weights(weights))
        tables = {group: scores_2d(model, found, group) for group, found in slices.items()}
        if model.family == "sam2":
            tables |= {group: scores_3d(model, found, group) for group, found in volumes.items()}
            chosen = [found[len(found) // 2] for found in volumes.values()]
            tracked = [
                p for c in chosen for p in examples.panels_3d(model, c, [*c.objects][0], DESIGN, seed=SEED)
            ]
            _save_pictures(tracked, out, f"{name}_overlays_3d")
        _save_pictures(_pictures(model, slices), out, f"{name}_overlays_2d")
        for group, table in tables.items():
            table.to_csv(out / f"{name}_{group}.csv", index=False)
        results["models"][name] = summarise(tables)
        print(f"\n{name}")
        for key, value in results["models"][name].items():
            print(f"  {key:<42} {value:8.3f}")
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results
