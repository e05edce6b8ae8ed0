"""Tables with known effects for the tests of statistics and figures: made up, and only used here."""

import numpy as np
import pandas as pd

from medsam_nb.protocol.designs import ALL_DESIGNS, MASK_CHOICES_2D
from medsam_nb.protocol.prompts import PROMPTS_2D
from medsam_nb.protocol.table import as_table

PROMPT_EFFECT = {"one_point": 0.0, "point_per_component": 0.02, "one_box": 0.15, "box_per_component": 0.18}
PROMPT_EFFECT |= {"mask": 0.25}
FRAME_EFFECT = {"first_slice": -0.1, "centre_slice": 0.03, "largest_slice": 0.05, "three_slices": 0.12}


def rows_2d(cases, rng, models=("miniature_sam2", "miniature_sam"), modes=PROMPTS_2D, slices=6):
    """2D rows: a base per case, an effect per prompt, noise per slice."""
    for data_set, case_id, base in cases:
        for model in models:
            for mode in modes:
                for choice in MASK_CHOICES_2D[:3]:
                    for z in range(slices):
                        value = base + PROMPT_EFFECT[mode] + 0.03 * (choice == "oracle_mask")
                        row = {
                            "task": "2d",
                            "data_set": data_set,
                            "modality": data_set.split("-")[0],
                            "case_id": case_id,
                            "object": "organ",
                            "model": model,
                            "prompt": mode,
                            "mask_choice": choice,
                            "protocol": "corrected",
                            "slice_index": z + 2,
                            "n_slices": slices + 4,
                            "spacing_z_mm": 3.0,
                            "n_components": 1 + z % 2,
                            "truth_px": 100 + 20 * min(z, slices - z),
                            "metric": "iou",
                            "value": float(np.clip(value + rng.normal(0, 0.03), 0, 1)),
                            "score": 0.8,
                        }
                        yield row
                        if choice == "oracle_mask":
                            yield row | {"mask_choice": "oracle_channel"}


def rows_3d(cases, rng, model="miniature_sam2", designs=ALL_DESIGNS, slices=12):
    """3D rows: below 2D, falling with the distance from the prompted slice."""
    for number, (data_set, case_id, base) in enumerate(cases):
        spacing = (1.0, 3.0, 6.0)[number % 3]
        for design in designs:
            prompted = {"first_slice": [2], "centre_slice": [8], "largest_slice": [7]}
            prompted = prompted.get(design.frame_choice, [5, 8, 11])
            for z in range(2, slices + 2):
                distance = min((z - p for p in prompted), key=abs)
                value = base - 0.15 + PROMPT_EFFECT[design.prompt] + FRAME_EFFECT[design.frame_choice]
                value += 0.04 * (design.direction == "bidirectional")
                value += 0.03 * (design.mask_choice == "first_mask") - 0.02 * abs(distance)
                yield {
                    "task": "3d",
                    "data_set": data_set,
                    "modality": data_set.split("-")[0],
                    "case_id": case_id,
                    "object": "organ",
                    "model": model,
                    "prompt": design.prompt,
                    "mask_choice": design.mask_choice,
                    "frame_choice": design.frame_choice,
                    "direction": design.direction,
                    "mask_scope": "all",
                    "protocol": "corrected",
                    "slice_index": z,
                    "prompted_slices": ";".join(map(str, prompted)),
                    "distance_slices": distance,
                    "distance_mm": distance * spacing,
                    "n_slices": slices + 4,
                    "spacing_z_mm": spacing,
                    "n_components": 1,
                    "neighbour_iou": 1 - 0.04 * abs(distance) if distance else None,
                    "truth_px": 100 + 10 * min(z, slices - z + 3),
                    "metric": "iou",
                    "value": float(np.clip(value + rng.normal(0, 0.03), 0, 1)),
                    "score": 0.8,
                }


def rows_of_clicks(cases, rng, prompts=("one_point", "one_box"), clicks=4, model="miniature_sam2"):
    """2D rows of corrections that rise by 0.04 with every click; every fifth slice ends after two."""
    for data_set, case_id, base in cases:
        for prompt in prompts:
            for z in range(5):
                last = 2 if z == 4 else clicks
                for loop in range(last + 1):
                    value = base - 0.1 + 0.04 * loop + rng.normal(0, 0.005)
                    yield {
                        "task": "2d_clicks", "data_set": data_set, "modality": data_set.split("-")[0],
                        "case_id": case_id, "object": "organ", "model": model, "prompt": prompt,
                        "mask_choice": "most_confident_mask", "protocol": "corrected", "strategy": "clicks",
                        "new_information": "one_point", "loop": loop, "n_prompts": loop + 1,
                        "ended": "no error is left" if loop == 2 and z == 4 else None, "slice_index": z,
                        "n_slices": 5, "truth_px": 100, "metric": "iou", "value": float(np.clip(value, 0, 1)),
                    }  # fmt: skip


def rows_of_loops(cases, rng, gains, ended=(), loops=2, slices=4, model="miniature_sam2"):
    """3D rows of corrections: `gains` by new information and loop; cases (set, n) in `ended` get none."""
    for data_set, case_id, base in cases:
        stuck = (data_set, int(case_id[-2:])) in ended
        for strategy in ("correction", "correction_reinitialised", "reinitialisation"):
            for information, gain in gains.items():
                last = 0 if stuck else loops
                only = strategy == "correction_reinitialised"
                for loop in ([last] if only else range(last + 1)) if not (only and stuck) else ():
                    for z in range(slices):
                        value = base - 0.1 + loop * gain + rng.normal(0, 0.005)
                        yield {
                            "task": "3d_loops", "data_set": data_set, "modality": data_set.split("-")[0],
                            "case_id": case_id, "object": "organ", "model": model, "prompt": "one_point",
                            "mask_choice": "most_confident_mask", "frame_choice": "centre_slice",
                            "direction": "bidirectional", "mask_scope": "all", "protocol": "corrected",
                            "frames": "image", "strategy": strategy, "new_information": information,
                            "loop": loop, "n_prompts": 1 + loop * (1 if strategy[0] == "r" else 2),
                            "ended": "no error is left" if stuck else None, "slice_index": z,
                            "n_slices": slices, "truth_px": 100, "metric": "iou",
                            "value": float(np.clip(value, 0, 1)), "score": 0.8,
                        }  # fmt: skip


def made_up_cases(data_sets=("MRI-Heart", "CT-Spleen"), cases=8, seed=0):
    """(data set, case, base IoU) with variation between data sets and cases."""
    rng = np.random.default_rng(seed)
    bases = {name: 0.5 + rng.normal(0, 0.05) for name in data_sets}
    return [(d, f"{d}_{n:02d}", bases[d] + rng.normal(0, 0.05)) for d in data_sets for n in range(cases)]


def made_up_table(data_sets=("MRI-Heart", "CT-Spleen"), cases=8, seed=0, designs=ALL_DESIGNS) -> pd.DataFrame:
    """2D rows of two models and 3D rows of one."""
    rng = np.random.default_rng(seed + 1)
    chosen = made_up_cases(data_sets, cases, seed)
    return as_table([*rows_2d(chosen, rng), *rows_3d(chosen, rng, designs=designs)])
