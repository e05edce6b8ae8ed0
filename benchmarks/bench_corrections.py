"""Corrections against the official predictor driven by hand: time, calls, and whether masks are identical.

    python -m benchmarks.bench_corrections [--slices N] [--loops K] [--image-size SIDE]

A simulated volume is prompted with a point on its centre slice and corrected in loops by both strategies with
every new information. Both others are `evaluation.reference_loops`. A careful user encodes every slice once,
for all starts; the plain loop makes a new inference state for every start, which reads all files and encodes
the slices that it visits.
CPU seconds on one thread. A row goes to runs/bench/corrections.json.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor

from benchmarks.inputs import miniature_model, simulated
from benchmarks.measure import measured
from medsam_nb.evaluation.correction_loops import correction_loops
from medsam_nb.evaluation.reference_loops import loops_by_hand
from medsam_nb.files import write_atomically
from medsam_nb.models.features import SliceFeatures
from medsam_nb.protocol.designs import prompted_slices

RESULTS = Path("runs/bench/corrections.json")


def encoded_once(network: SAM2VideoPredictor, folder: Path) -> Callable[[], dict]:
    """Return what gives inference states of a volume that share its encoded slices, and nothing else."""
    whole = network.init_state(str(folder))
    for index, image in enumerate(whole["images"]):
        shown = image[None].to(whole["device"]).float()
        whole["cached_features"][index] = shown, network.forward_image(shown)

    def new_state() -> dict:
        own = {name: type(value)() for name, value in whole.items() if isinstance(value, dict | list)}
        return whole | own | {name: whole[name] for name in ("images", "cached_features")}

    return new_state


def compare(slices: int, loops: int, image_size: int) -> dict:
    """Run all on one volume; return times, counts and whether every mask and score is the same."""
    model, parts = miniature_model(image_size=image_size), ("bench",)
    with tempfile.TemporaryDirectory() as folder:
        make = simulated(slices, slices // 5, slices - slices // 5 - 1)
        volume = make(model.image_size, Path(folder) / "slices")
        ((name, truth),) = volume.objects.items()
        truth = truth.astype(bool)
        (middle,) = prompted_slices(truth.sum((1, 2)), "centre_slice")
        initial = {middle: volume.prompt_of(name, middle, "one_point")}
        warm = SliceFeatures(model, volume.slices)
        list(correction_loops(model, truth, initial, warm, parts, loops=0))  # what is done once
        with measured(model.network) as (counts, _):
            start = time.process_time()
            features = SliceFeatures(model, volume.slices)
            found = list(correction_loops(model, truth, initial, features, parts, loops=loops))
            engine_s = time.process_time() - start
        sides, seconds, side_counts = {}, {}, {}
        for side in ("careful", "plain"):
            with (
                measured(model.network) as (side_counts[side], _),
                redirect_stderr(open(os.devnull, "w", encoding="utf-8")),
                torch.inference_mode(),
            ):
                start = time.process_time()
                again = partial(model.network.init_state, str(volume.folder))
                new_state = again if side == "plain" else encoded_once(model.network, volume.folder)
                sides[side] = loops_by_hand(model, new_state, truth, initial, parts, loops=loops)
                seconds[side] = time.process_time() - start
    keyed = {(one.strategy, one.new_information, one.loop): one.prediction for one in found}
    identical = all(keyed.keys() == side.keys() for side in sides.values()) and all(
        np.array_equal(keyed[key].masks[index], mask)
        and np.array_equal(keyed[key].scores[index], by_hand.scores[index], equal_nan=True)
        for side in sides.values()
        for key, by_hand in side.items()
        for index, mask in by_hand.masks.items()
    )
    return {
        "model": f"{model.name}, {model.checkpoint_sha256}",
        "image_size": model.image_size,
        "slices": slices,
        "object_slices": int(truth.any((1, 2)).sum()),
        "loops": loops,
        "results": len(found),
        **{f"{side}_cpu_s": round(seconds[side], 2) for side in sides},
        "engine_cpu_s": round(engine_s, 2),
        "cpu_ratio": round(seconds["plain"] / engine_s, 2),
        "cpu_ratio_to_careful": round(seconds["careful"] / engine_s, 2),
        "identical": identical,
        **{f"{side}_counts": dict(side_counts[side]) for side in sides},
        "engine_counts": dict(counts),
    }


def main() -> None:
    """Measure one volume; fail if a mask differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slices", type=int, default=24, help="of the volume")
    parser.add_argument("--loops", type=int, default=3, help="of corrections")
    parser.add_argument("--image-size", type=int, default=256, help="side of the network's input")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*_C.*|.*jit.*")
    row = compare(options.slices, options.loops, options.image_size)
    print(json.dumps(row), flush=True)
    write_atomically(RESULTS, json.dumps([row], indent=1).encode())
    if not row["identical"]:
        sys.exit("the engine's masks differ from those of the package")


if __name__ == "__main__":
    main()
