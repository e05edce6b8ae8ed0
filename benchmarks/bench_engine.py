"""The sweep engine against two others: time, calls, memory, and whether masks are identical.

The stronger one is a careful user of the sam2 package (`evaluation.reference`): one inference state for all
designs, every slice encoded once, tracking to the last slice that counts; in 2D the image predictor, shown
every slice once. The weaker one is the study's own loop, which starts anew for every design.

    python -m benchmarks.bench_engine [--only CASE ...] [--quick]

All sides run in one process on the same weights and inputs, the engine first; each case has a process
of its own. Times are of the CPU, on one thread, so that a busy machine disturbs the ratios little; where
there is a CUDA device, further cases run on it, timed by the wall clock. Rows go to
runs/bench/results.json as they are measured; a case that is run alone replaces its own rows only.
"""

import argparse
import json
import os
import subprocess
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

from benchmarks.batching import batching
from benchmarks.inputs import Scan, miniature_model, mni152, of_the_demo, official_model, simulated
from benchmarks.measure import clock_of, flop_table, measured
from benchmarks.study_loop import decode_all, decode_carefully, track_all
from medsam_nb.evaluation import propagation, reference, single_slices
from medsam_nb.files import write_atomically
from medsam_nb.models.checkpoints import Model
from medsam_nb.models.features import device_name
from medsam_nb.protocol.designs import ALL_DESIGNS, PAPER_V1_DESIGNS, Design
from medsam_nb.protocol.options import PropagationOptions
from medsam_nb.protocol.prompts import PROMPTS_2D, PROMPTS_3D, prompts_2d
from medsam_nb.provenance import peak_memory_mb

RESULTS = Path("runs/bench/results.json")


def run_engine(model: Model, volume: Scan, designs, **options) -> dict:
    """Run the engine, with options of `PropagationOptions`, and index its logits as `track_all` does."""
    return _swept(propagation.sweep, model, volume, designs, PropagationOptions(**options))


def run_carefully(model: Model, volume: Scan, designs) -> dict:
    """Run the package as a careful user does, and index its logits as `track_all` does."""
    return _swept(reference.sweep, model, volume, designs, PropagationOptions())


def _swept(sweep: Callable, model: Model, volume: Scan, designs, options: PropagationOptions) -> dict:
    items = sweep(model, volume.slices, volume.objects, designs, volume.prompt_of, options)
    return {
        (item.object_name, design, item.slice_index): item.logits for item in items for design in item.designs
    }


def warm_up(model: Model, volume: Scan) -> None:
    """Let torch compile and allocate, and Python import, what it does once, outside the clock."""
    middle = {name: mask[2:4] for name, mask in volume.objects.items()}
    small = Scan(volume.folder, volume.slices[2:4], {n: m for n, m in middle.items() if m.any()})
    designs = [Design("first_slice", kind, "front_to_end", "first_mask") for kind in PROMPTS_3D]
    run_engine(model, small, designs)


def mean_iou(found: dict, objects: dict) -> float:
    """Mean IoU with the truth over all designs and slices."""
    values = []
    for (name, _, index), logits in found.items():
        truth, mask = objects[name][index], logits > 0
        values.append(np.count_nonzero(truth & mask) / np.count_nonzero(truth | mask))
    return float(np.mean(values))


def described(model: Model) -> dict:
    """Return what a row says of the model that was run."""
    return {
        "model": f"{model.name}, {model.checkpoint_sha256}",
        "device": device_name(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "image_size": model.image_size,
    }


def compare_3d(
    make_model: Callable[[], Model],
    make_volume: Callable[[int, Path], Scan],
    designs: tuple[Design, ...],
    *,
    blocked: bool = False,
) -> list[dict]:
    """Run the engine, with blocked attention too if asked for, then the others; a row for each engine run."""
    model, engines, rows = make_model(), {}, []
    now = clock_of(model.network)
    with tempfile.TemporaryDirectory() as folder:
        volume = make_volume(model.image_size, Path(folder) / "slices")
        warm_up(model, volume)
        for attention in ("exact", "blocked") if blocked else ("exact",):
            with measured(model.network) as (counts, seconds):
                start = now()
                found = run_engine(model, volume, designs, attention=attention)
                total = now() - start
            engines[attention] = found, total, dict(counts), dict(seconds), peak_memory_mb()
        with measured(model.network) as (careful_counts, _):
            start = now()
            careful = run_carefully(model, volume, designs)
            careful_s = now() - start
        with (
            measured(model.network) as (loop_counts, loop_seconds),
            redirect_stderr(open(os.devnull, "w", encoding="utf-8")),
        ):
            start = now()
            expected = track_all(model, volume, designs)
            loop_s = now() - start
    pixels = sum(logits.size for logits in expected.values())
    clock = "wall" if model.device.type == "cuda" else "cpu"
    for attention, (found, total, counts, seconds, peak) in engines.items():
        assert found.keys() == expected.keys() == careful.keys()
        differing = sum(np.count_nonzero((found[key] > 0) != (expected[key] > 0)) for key in expected)
        rows.append(
            {
                **described(model),
                "slices": len(volume.slices),
                "objects": len(volume.objects),
                "designs": len(designs),
                "attention": attention,
                f"loop_{clock}_s": round(loop_s, 2),
                f"engine_{clock}_s": round(total, 2),
                f"careful_{clock}_s": round(careful_s, 2),
                f"{clock}_ratio": round(loop_s / total, 2),
                f"{clock}_ratio_to_careful": round(careful_s / total, 2),
                "floor_ratio": round(total / sum(seconds.values()), 3),
                "identical": all(
                    np.array_equal(logits, side[key])
                    for side in (careful, expected)
                    for key, logits in found.items()
                ),
                "differing_pixels": differing / pixels,
                "mean_iou": mean_iou(expected, volume.objects),
                "mean_iou_difference": mean_iou(found, volume.objects) - mean_iou(expected, volume.objects),
                "loop_counts": dict(loop_counts),
                "careful_counts": dict(careful_counts),
                "engine_counts": counts,
                "loop_part_s": {name: round(value, 2) for name, value in loop_seconds.items()},
                "engine_part_s": {name: round(value, 2) for name, value in seconds.items()},
                "peak_rss_mb": peak,
            }
        )
    return rows


def compare_2d(make_model: Callable[[], Model], make_volume: Callable[[int, Path], Scan]) -> list[dict]:
    """Decode all modes of all objects on all slices that hold them, in all three ways."""
    model = make_model()
    with tempfile.TemporaryDirectory() as folder:
        volume = make_volume(model.image_size, Path(folder) / "slices")
        prompts = {
            (name, int(index), mode, number): (int(index), prompt)
            for name, mask in volume.objects.items()
            for index in np.flatnonzero(mask.any((1, 2)))
            for mode in PROMPTS_2D
            for number, prompt in enumerate(prompts_2d(mask[index], mode, ("bench", name, int(index))))
        }
        list(single_slices.candidates(model, volume.slices, dict(list(prompts.items())[:1])))  # warm up
        with measured(model.network) as (engine_counts, _):
            start = time.process_time()
            found = {key: masks for key, masks, _ in single_slices.candidates(model, volume.slices, prompts)}
            engine_s = time.process_time() - start
        peak = peak_memory_mb()
        with measured(model.network) as (careful_counts, _):
            start = time.process_time()
            careful = decode_carefully(model, volume, prompts)
            careful_s = time.process_time() - start
        with measured(model.network) as (loop_counts, _):
            start = time.process_time()
            expected = decode_all(model, volume, prompts)
            loop_s = time.process_time() - start
    row = {
        **described(model),
        "slices": len({index for index, _ in prompts.values()}),
        "objects": len(volume.objects),
        "prompts": len(prompts),
        "loop_cpu_s": round(loop_s, 2),
        "engine_cpu_s": round(engine_s, 2),
        "careful_cpu_s": round(careful_s, 2),
        "cpu_ratio": round(loop_s / engine_s, 2),
        "cpu_ratio_to_careful": round(careful_s / engine_s, 2),
        "identical": all(
            np.array_equal(found[key], side[key]) for side in (careful, expected) for key in expected
        ),
        "loop_counts": dict(loop_counts),
        "careful_counts": dict(careful_counts),
        "engine_counts": dict(engine_counts),
        "peak_rss_mb": peak,
    }
    return [row]


def memory_of(depth: int) -> list[dict]:
    """Sweep a volume of noise of this depth to its ends, in both directions; report the peak memory."""
    slices = np.random.default_rng(0).integers(0, 255, (depth, 256, 256), np.uint8)
    mask = np.zeros(slices.shape, bool)
    mask[depth // 3 : 2 * depth // 3, 90:160, 80:170] = True
    designs = [
        Design("centre_slice", "one_box", direction, "most_confident_mask")
        for direction in ("front_to_end", "bidirectional")
    ]
    volume, start = Scan(Path(), slices, {"box": mask}), time.process_time()
    options = PropagationOptions(until="volume_end")
    sweep = propagation.sweep(miniature_model(), slices, volume.objects, designs, volume.prompt_of, options)
    for _ in sweep:
        pass
    seconds = round(time.process_time() - start, 2)
    return [{"slices": depth, "designs": 2, "engine_cpu_s": seconds, "peak_rss_mb": peak_memory_mb()}]


def growth() -> list[dict]:
    """Time the engine against slices, objects and designs."""
    model, rows = miniature_model(), []
    sets = {1: PAPER_V1_DESIGNS[:1], 24: PAPER_V1_DESIGNS, 64: ALL_DESIGNS}
    for depth, objects, designs in (
        (8, 1, 24),
        (16, 1, 24),
        (32, 1, 24),
        (16, 2, 24),
        (16, 1, 1),
        (16, 1, 64),
    ):
        with tempfile.TemporaryDirectory() as folder:
            make = simulated(depth, depth // 4, 3 * depth // 4, objects=objects)
            volume = make(model.image_size, Path(folder) / "slices")
        if not rows:
            warm_up(model, volume)
        start = time.process_time()
        run_engine(model, volume, sets[designs])
        seconds = round(time.process_time() - start, 2)
        size = {"slices": depth, "objects": len(volume.objects), "designs": designs}
        rows.append(size | {"engine_cpu_s": seconds, "peak_rss_mb": peak_memory_mb()})
    return rows


# The largest slice is the centre slice, as in about half of the simulated volumes.
COINCIDING_6, COINCIDING_16 = simulated(6, 1, 4, seed=4), simulated(16, 3, 12, seed=4)
TINY_512, TINY_1024 = (partial(official_model, "t", side, "bfloat16") for side in (512, 1024))
HALF = partial(miniature_model, "bfloat16")
SAM = partial(miniature_model, family="sam")
CASES = {
    "3d_24_mni152": partial(compare_3d, miniature_model, mni152, PAPER_V1_DESIGNS),
    "3d_24_simulated_16": partial(compare_3d, miniature_model, simulated(16, 3, 12), PAPER_V1_DESIGNS),
    "3d_24_coinciding_16": partial(compare_3d, miniature_model, COINCIDING_16, PAPER_V1_DESIGNS),
    "3d_64_simulated_16": partial(compare_3d, miniature_model, simulated(16, 3, 12), ALL_DESIGNS),
    "3d_24_simulated_100": partial(compare_3d, miniature_model, simulated(100, 30, 69), PAPER_V1_DESIGNS),
    "3d_64_simulated_100": partial(compare_3d, miniature_model, simulated(100, 30, 69), ALL_DESIGNS),
    "2d_miniature_sam2": partial(compare_2d, miniature_model, simulated(16, 4, 11, objects=5)),
    "2d_miniature_sam": partial(compare_2d, SAM, simulated(16, 4, 11, objects=5)),
    "flops_hiera_l_1024": lambda: [flop_table() | {"peak_rss_mb": peak_memory_mb()}],
    "3d_24_bfloat16_16": partial(compare_3d, HALF, simulated(16, 3, 12), PAPER_V1_DESIGNS, blocked=True),
    "3d_24_hiera_t_512": partial(compare_3d, TINY_512, simulated(6, 1, 4), PAPER_V1_DESIGNS, blocked=True),
    "memory_100": partial(memory_of, 100),
    "memory_300": partial(memory_of, 300),
    "memory_1000": partial(memory_of, 1000),
    "growth": growth,
    "2d_hiera_t_512": partial(compare_2d, TINY_512, simulated(6, 2, 3, objects=5)),
    **{
        f"demo_{name}": partial(compare_3d, miniature_model, of_the_demo(name), ALL_DESIGNS)
        for name in ("mni152", "simulated_ct", "simulated_pet", "simulated_ultrasound")
    },
    "batching_miniature": partial(batching, miniature_model, simulated(16, 3, 12)),
    "3d_24_hiera_t_1024": partial(compare_3d, TINY_1024, simulated(6, 1, 4), PAPER_V1_DESIGNS, blocked=True),
    "3d_24_coinciding_hiera_t_1024": partial(
        compare_3d, TINY_1024, COINCIDING_6, PAPER_V1_DESIGNS, blocked=True
    ),
}
if torch.cuda.is_available():
    ON_GPU = partial(official_model, image_size=1024, dtype="bfloat16", device=torch.device("cuda"))
    CASES |= {
        f"cuda_3d_24_hiera_{size}": partial(
            compare_3d, partial(ON_GPU, size), simulated(100, 30, 69), PAPER_V1_DESIGNS
        )
        for size in ("t", "l")
    } | {
        f"cuda_batching_hiera_{size}": partial(batching, partial(ON_GPU, size), simulated(16, 3, 12))
        for size in ("t", "l")
    }
QUICK = {
    "quick_3d": partial(
        compare_3d, partial(miniature_model, image_size=128), simulated(6, 1, 4), PAPER_V1_DESIGNS
    ),
    "quick_batching": partial(batching, partial(miniature_model, image_size=128), simulated(6, 1, 4)),
    "quick_2d": partial(compare_2d, partial(miniature_model, image_size=128), simulated(6, 1, 4, objects=2)),
}


def record(case: str, measured_rows: list[dict]) -> None:
    """Print the rows of a case and put them in the place of its older ones."""
    rows = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    for row in measured_rows:
        print(json.dumps({"case": case} | row), flush=True)
    rows = [row for row in rows if row["case"] != case] + [{"case": case} | row for row in measured_rows]
    write_atomically(RESULTS, json.dumps(rows, indent=1).encode())


def main() -> None:
    """Run the cases that are asked for; fail if an exact one was not identical."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[*CASES, *QUICK], help="run these cases")
    parser.add_argument("--quick", action="store_true", help="three small cases, under a minute")
    options = parser.parse_args()
    chosen = options.only or list(QUICK if options.quick else CASES)
    if len(chosen) > 1:
        command = [sys.executable, "-m", "benchmarks.bench_engine", "--only"]
        failed = [case for case in chosen if subprocess.run([*command, case]).returncode]
        sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*_C.*|.*jit.*")
    (case,) = chosen
    rows = (CASES | QUICK)[case]()
    record(case, rows)
    for row in rows:
        if row.get("attention", "exact") == "exact" and row.get("identical") is False:
            sys.exit(f"{case}: the engine's predictions differ from those of the package")


if __name__ == "__main__":
    main()
