"""Measures of the shipped miniature models on data that training never saw.

    python -m medsam_nb.model_report

Everything runs through the official predictors.  Simulated volumes come from a part of the validation seeds
that training did not watch; MNI152 is nilearn's bundled template; real cases are read from a folder with an
`INDEX.csv`, when it is there, and only those whose masks are fit for accuracy are used.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from sam2.sam2_image_predictor import SAM2ImagePredictor
from segment_anything import SamPredictor
from tqdm import tqdm

from medsam_nb import miniature, phantom
from medsam_nb import training_data as data
from medsam_nb.manifest import load_manifest
from medsam_nb.models import load_model, read_weights
from medsam_nb.project import project_root

# Volumes 0..23 of the validation seeds are watched during training; the report starts here.
FIRST_REPORT_VOLUME = 1000
VOLUMES = 24
# Sources whose masks are no reference for accuracy: model output, registration masks, soft or lossy masks.
UNFIT = ("model output", "registration", "soft", "JPEG", "EDGE")
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def iou(predicted: np.ndarray, truth: np.ndarray) -> float:
    """IoU of two boolean masks; two empty masks agree (1.0)."""
    union = np.logical_or(predicted, truth).sum()
    return 1.0 if union == 0 else float(np.logical_and(predicted, truth).sum() / union)


def exact_box(mask: np.ndarray) -> np.ndarray:
    """Inclusive bounding box (x0, y0, x1, y1) of a 2D mask."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([xs[0], ys[0], xs[-1], ys[-1]], np.float32)


def deepest_point(mask: np.ndarray) -> np.ndarray:
    """Deepest pixel (x, y) of a 2D mask by the Euclidean distance transform (the first of ties)."""
    distance = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), mask.shape)
    return np.array([[x, y]], np.float32)


def is_compact(mask: np.ndarray) -> bool:
    """One component, not thin, solidity of at least 0.7."""
    if cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] != 2:
        return False
    depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5).max()
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(np.concatenate(outlines))
    solid = mask.sum() / max(1.0, cv2.contourArea(hull) + 0.5 * len(hull))
    return depth >= 0.13 * np.sqrt(mask.sum()) and solid >= 0.7


def to_rgb(image: np.ndarray) -> np.ndarray:
    """A 0..1 image as uint8 RGB."""
    return np.repeat((np.clip(image, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)


def stretched(image: np.ndarray, modality: str = "") -> np.ndarray:
    """Display values 0..1: a soft-tissue window for CT, else the 0.5 to 99.5 percentiles of the volume."""
    if modality.startswith("CT") and image.min() < -300:
        return np.clip((image + 160) / 400, 0, 1).astype(np.float32)
    low, high = np.percentile(image, [0.5, 99.5])
    return np.clip((image - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)


def image_predictor(model):
    """The official image predictor of either model."""
    if not hasattr(model, "image_size"):
        return SamPredictor(model)
    predictor = SAM2ImagePredictor(model)
    predictor._bb_feat_sizes = miniature.feature_sizes(model.image_size)
    return predictor


def score_slice(predictor, masks: list[np.ndarray]) -> list[dict]:
    """Rows of IoU for every mask of the image that the predictor has set."""
    rows = []
    for mask in masks:
        row = {"compact": is_compact(mask), "area": int(mask.sum())}
        masks_out, _, _ = predictor.predict(box=exact_box(mask), multimask_output=True)
        row["box_first"] = iou(masks_out[0] > 0, mask)
        masks_out, scores, _ = predictor.predict(
            point_coords=deepest_point(mask), point_labels=np.ones(1, np.int32), multimask_output=True
        )
        row["point_first"] = iou(masks_out[0] > 0, mask)
        row["point_confident"] = iou(masks_out[int(np.argmax(scores))] > 0, mask)
        row["point_best"] = max(iou(m > 0, mask) for m in masks_out)
        rows.append(row)
    return rows


def report_pool(folder: Path) -> data.Pool:
    """Label volumes of the report (built once)."""
    path = Path(folder) / "pool_report.npy"
    data.build_pool(path, phantom.VALIDATION_SEED_BASE + FIRST_REPORT_VOLUME, VOLUMES)
    return data.open_pool(path)


def simulated_slices(predictor, pool: data.Pool, images: int) -> pd.DataFrame:
    """2D scores on simulated images of held-out volumes at 256 pixels."""
    rows = []
    for item in tqdm(range(images), desc="simulated 2D"):
        rng = np.random.default_rng([733, item])
        image, masks, _ = data.image_sample(pool, rng, data.SampleOptions(size=256))
        predictor.set_image(to_rgb(image))
        rows += [{"image": item, **row} for row in score_slice(predictor, masks)]
    return pd.DataFrame(rows)


@torch.inference_mode()
def propagate(model, images: np.ndarray, box: np.ndarray, prompted: int) -> dict[int, np.ndarray]:
    """Masks of every slice by the official video predictor, both directions from one box.

    Parameters
    ----------
    model : SAM2VideoPredictor
    images : ndarray of float, shape (z, y, x), 0..1
    box : ndarray, (x0, y0, x1, y1) in pixels of `images`
    prompted : int

    Returns
    -------
    dict of int to ndarray of bool, shape (y, x)
    """
    height, width = images.shape[1:]
    size = model.image_size
    frames = np.stack([cv2.resize(to_rgb(s), (size, size), interpolation=cv2.INTER_CUBIC) for s in images])
    tensor = torch.from_numpy(((frames / 255 - MEAN) / STD).astype(np.float32)).permute(0, 3, 1, 2)
    state = {
        "images": tensor,
        "num_frames": len(tensor),
        "offload_video_to_cpu": False,
        "offload_state_to_cpu": False,
        "video_height": height,
        "video_width": width,
        "device": torch.device("cpu"),
        "storage_device": torch.device("cpu"),
        "obj_id_to_idx": {},
        "obj_idx_to_id": {},
        "obj_ids": [],
        "constants": {},
        "cached_features": {},
    }
    for name in (
        "point_inputs_per_obj",
        "mask_inputs_per_obj",
        "output_dict_per_obj",
        "temp_output_dict_per_obj",
    ):
        state[name] = {}
    state["frames_tracked_per_obj"] = {}
    model.add_new_points_or_box(state, frame_idx=prompted, obj_id=1, box=box)
    found = {}
    for reverse in (False, True):
        for t, _, logits in model.propagate_in_video(state, start_frame_idx=prompted, reverse=reverse):
            found[t] = (logits[0, 0] > 0).cpu().numpy()
    return found


def score_volume(model, images: np.ndarray, truth: np.ndarray) -> dict | None:
    """3D scores of one object from a box on its centre slice; None without a usable object."""
    present = np.flatnonzero(truth.any(axis=(1, 2)))
    if len(present) < 3:
        return None
    centre = int(present[len(present) // 2])
    found = propagate(model, images, exact_box(truth[centre]), centre)
    others = [t for t in present if t != centre]
    absent = [t for t in range(len(truth)) if t not in set(present.tolist())]
    inside = sum(np.logical_and(found[t], truth[t]).sum() for t in found)
    total = sum(m.sum() for m in found.values()) + truth.sum()
    distances = {abs(int(t) - centre): iou(found[t], truth[t]) for t in others}
    return {
        "prompted": iou(found[centre], truth[centre]),
        "propagated": float(np.mean([iou(found[t], truth[t]) for t in others])),
        "near": float(np.mean([v for d, v in distances.items() if d <= 2])),
        "far": float(np.mean([v for d, v in distances.items() if d > 2])) if max(distances) > 2 else np.nan,
        "dice": float(2 * inside / max(1, total)),
        "absent": len(absent),
        "absent_empty": int(sum(not found[t].any() for t in absent)),
    }


def simulated_volumes(model, pool: data.Pool, objects: int) -> pd.DataFrame:
    """3D scores on simulated volumes, 16 slices, objects that are compact on their centre slice."""
    rows, item = [], 0
    bar = tqdm(total=objects, desc="simulated 3D")
    while len(rows) < objects:
        rng = np.random.default_rng([734, item])
        item += 1
        options = data.SampleOptions(size=256, slices=pool.labels.shape[1])
        images, masks, prompted = data.video_sample(pool, rng, options, objects=1)
        truth = masks[0]
        present = np.flatnonzero(truth.any(axis=(1, 2)))
        centre = truth[present[len(present) // 2]]
        if centre.sum() < 80 or not is_compact(centre):
            continue
        row = score_volume(model, images, truth)
        if row is not None:
            rows.append({"item": item, **row})
            bar.update(1)
    bar.close()
    return pd.DataFrame(rows)


def mni152(predictor) -> pd.DataFrame:
    """2D scores of brain, grey and white matter on six axial slices of nilearn's MNI152 template."""
    from nilearn import datasets

    template = datasets.load_mni152_template(resolution=2).get_fdata().transpose(2, 1, 0)[:, ::-1]
    rows = []
    loaders = {
        "brain": datasets.load_mni152_brain_mask,
        "grey matter": datasets.load_mni152_gm_mask,
        "white matter": datasets.load_mni152_wm_mask,
    }
    masks = {k: f(resolution=2).get_fdata().transpose(2, 1, 0)[:, ::-1] > 0.5 for k, f in loaders.items()}
    image = stretched(template)
    for z in np.linspace(28, 62, 6).astype(int):
        predictor.set_image(to_rgb(np.ascontiguousarray(image[z])))
        for name, mask in masks.items():
            rows += [{"object": name, "slice": int(z), **r} for r in score_slice(predictor, [mask[z]])]
    return pd.DataFrame(rows)


def _read(path: Path) -> np.ndarray:
    """A real image or mask as (z, y, x)."""
    import nibabel
    import SimpleITK

    if path.is_dir():
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
        return SimpleITK.GetArrayFromImage(reader.Execute()).astype(np.float32)
    if path.name.endswith((".nii", ".nii.gz")):
        return np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj, np.float32).T
    if path.suffix in (".png", ".jpg", ".tif", ".tiff"):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if image.ndim == 3:
            image = image[..., :3].mean(axis=2)
        return image[None].astype(np.float32)
    array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).astype(np.float32)
    return array if array.ndim == 3 else array[None]


def real_cases(folder: Path) -> list[tuple[str, str, np.ndarray, np.ndarray]]:
    """(case, modality, image 0..1, integer labels) of the real cases fit for accuracy."""
    folder, cases, seen = Path(folder), [], set()
    for row in pd.read_csv(folder / "INDEX.csv", dtype=str, keep_default_na=False).itertuples(index=False):
        text = " ".join(row)
        if any(word.lower() in text.lower() for word in UNFIT):
            continue
        case, modality = f"{row[0]}/{row[1]}", row[2]
        image_path, mask_path = folder / row[4], folder / row[5]
        try:
            image, labels = _read(image_path), _read(mask_path)
        except (RuntimeError, OSError, AttributeError, ValueError) as error:
            tqdm.write(f"{case}: not read ({str(error).splitlines()[0][:80]})")
            continue
        if image.shape != labels.shape or len(np.unique(labels)) > 60:
            tqdm.write(f"{case}: shapes {image.shape} and {labels.shape} or labels do not fit, left out")
            continue
        key = (image.shape, float(image.sum()), float((labels > 0).sum()))
        if key not in seen:
            seen.add(key)
            cases.append((case, modality, stretched(image, modality), labels.round().astype(int)))
    return cases


def real_slices(predictor, cases, per_object: int = 6) -> pd.DataFrame:
    """2D scores on up to `per_object` slices of every real object of at least 30 pixels."""
    rows = []
    for case, modality, image, labels in tqdm(cases, desc="real 2D"):
        for value in np.unique(labels)[1:]:
            truth = labels == value
            usable = np.flatnonzero(truth.sum(axis=(1, 2)) >= 30)
            if len(usable) == 0:
                continue
            picked = usable[np.unique(np.linspace(0, len(usable) - 1, per_object).round().astype(int))]
            for z in picked:
                predictor.set_image(to_rgb(image[z]))
                extra = {"case": case, "modality": modality, "label": int(value), "slice": int(z)}
                rows += [{**extra, **r} for r in score_slice(predictor, [truth[z]])]
    return pd.DataFrame(rows)


def real_volumes(model, cases, slices: int = 16) -> pd.DataFrame:
    """3D scores on real volumes, the largest objects, at most `slices` slices around the centre."""
    rows = []
    for case, modality, image, labels in tqdm(cases, desc="real 3D"):
        values, counts = np.unique(labels[labels > 0], return_counts=True)
        for value in values[np.argsort(-counts)][:2]:
            truth = labels == value
            present = np.flatnonzero(truth.sum(axis=(1, 2)) >= 30)
            if len(present) < 3:
                continue
            start = max(0, int(present[len(present) // 2]) - slices // 2)
            window = slice(start, start + slices)
            row = score_volume(model, image[window], truth[window])
            if row is not None:
                rows.append({"case": case, "modality": modality, "label": int(value), **row})
    return pd.DataFrame(rows)


def summarise(tables: dict[str, pd.DataFrame]) -> dict[str, float]:
    """The headline numbers of one model from its tables."""
    numbers: dict[str, float] = {}
    for name in ("simulated_2d", "real_2d"):
        if len(table := tables.get(name, ())):
            numbers[f"{name} masks"] = len(table)
            for column in ("box_first", "point_first", "point_confident", "point_best"):
                numbers[f"{name} {column}"] = table[column].mean()
            numbers[f"{name} box_first, compact"] = table.loc[table["compact"], "box_first"].mean()
    if "mni152" in tables:
        for name, group in tables["mni152"].groupby("object"):
            numbers[f"mni152 {name} box_first"] = group["box_first"].mean()
            numbers[f"mni152 {name} point_confident"] = group["point_confident"].mean()
    for name in ("simulated_3d", "real_3d"):
        if len(table := tables.get(name, ())):
            numbers[f"{name} objects"] = len(table)
            for column in ("prompted", "propagated", "near", "far", "dice"):
                numbers[f"{name} {column}"] = table[column].mean()
            numbers[f"{name} absent slices empty"] = table["absent_empty"].sum() / max(
                1, table["absent"].sum()
            )
    return {k: round(float(v), 4) for k, v in numbers.items()}


def report(
    out: Path, real: Path, *, images: int = 70, objects: int = 20, weights: dict | None = None
) -> dict:
    """Measure the shipped models, print the table, write `results.json` and the CSV tables.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the results.
    real : pathlib.Path
        Folder with real cases and `INDEX.csv`; left out, with a note, where it is absent.
    images, objects : int
        Simulated images (2D) and objects (3D).
    weights : dict, optional
        Model name to weights file, instead of the shipped ones.

    Returns
    -------
    dict
        Model name to headline numbers.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    pool, results = report_pool(out), {"date": time.strftime("%Y-%m-%d"), "models": {}}
    cases = real_cases(real) if (Path(real) / "INDEX.csv").is_file() else []
    results["real cases"] = f"{len(cases)} cases" if cases else "no folder of real cases: not measured"
    manifest = load_manifest(project_root() / "data_manifest.yaml")
    for name in weights or ("miniature_sam2", "miniature_sam"):
        if weights:
            model = miniature.build_sam2() if name == "miniature_sam2" else miniature.build_sam()
            model.load_state_dict(read_weights(Path(weights[name])))
        else:
            model = load_model(manifest.checkpoint(name), Path(), device="cpu").network
        predictor = image_predictor(model.eval())
        tables = {"simulated_2d": simulated_slices(predictor, pool, images), "mni152": mni152(predictor)}
        if cases:
            tables["real_2d"] = real_slices(predictor, cases)
        if name == "miniature_sam2":
            tables["simulated_3d"] = simulated_volumes(model, pool, objects)
            if cases:
                tables["real_3d"] = real_volumes(model, [c for c in cases if len(c[2]) > 2])
        for table_name, table in tables.items():
            table.to_csv(out / f"{name}_{table_name}.csv", index=False)
        results["models"][name] = summarise(tables)
        print(f"\n{name}")
        for key, value in results["models"][name].items():
            print(f"  {key:<42} {value:8.3f}")
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results


def main(arguments: list[str] | None = None) -> None:
    """Command line of `python -m medsam_nb.model_report`."""
    parser = argparse.ArgumentParser(description="Measure the shipped miniature models.")
    parser.add_argument("--out", type=Path, default=Path("runs/miniature"))
    parser.add_argument("--real", type=Path, default=Path("../shared/data"), help="folder with INDEX.csv")
    parser.add_argument("--images", type=int, default=70)
    parser.add_argument("--objects", type=int, default=20)
    parser.add_argument(
        "--weights", type=Path, nargs=2, metavar=("NAME", "FILE"), help="measure another file"
    )
    options = parser.parse_args(arguments)
    torch.set_flush_denormal(True)
    weights = {str(options.weights[0]): options.weights[1]} if options.weights else None
    report(options.out, options.real, images=options.images, objects=options.objects, weights=weights)


if __name__ == "__main__":
    main()
