"""The sweep engine against the study's own loop: time, calls, memory, and whether masks are identical.

    python -m benchmarks.bench_engine [--only CASE ...] [--quick]

Both sides run in this process on the same weights and inputs. Times are of the CPU, on one thread, so
that a busy machine disturbs the ratios little. Rows go to runs/bench/results.json, one per case; a case
that is run alone replaces its own row only.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections import Counter
from contextlib import ExitStack, contextmanager, redirect_stderr
from functools import cache
from pathlib import Path

import numpy as np
import torch
from sam2.build_sam import build_sam2_video_predictor

from benchmarks.study_loop import decode_all, track_all
from medsam_nb import decode2d, engine, miniature, phantom
from medsam_nb.designs import ALL_DESIGNS, PAPER_V1_DESIGNS
from medsam_nb.models import EMBEDDED_WEIGHTS, Model, read_weights
from medsam_nb.prompts import MODES_2D, prompt_3d, prompts_2d

RESULTS = Path("runs/bench/results.json")
WEIGHTS = EMBEDDED_WEIGHTS / "miniature_sam2.pt"
CPU = torch.device("cpu")


# --- inputs ---------------------------------------------------------------------------------------


def seeded(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Redraw the weights so that candidates and scores change from slice to slice."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(network.named_parameters()):
            if parameter.ndim > 1:
                spread = 1.2 / max(1, parameter[0].numel()) ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * spread)
            elif "gamma" in name:
                parameter.fill_(0.5)
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(2.0)
    return network


@cache
def miniature_model(dtype: str = "float32", image_size: int = miniature.IMAGE_SIZE) -> Model:
    """The miniature with its trained weights; with seeded ones where there are none yet."""
    network = miniature.build_sam2(image_size)
    if WEIGHTS.exists():
        network.load_state_dict(read_weights(WEIGHTS))
    else:
        seeded(network)
    origin = "trained" if WEIGHTS.exists() else "untrained-seed-0"
    return Model("miniature", "sam2", network, image_size, origin, CPU, getattr(torch, dtype))


def official_model(size: str, image_size: int, dtype: str) -> Model:
    """An official architecture with seeded weights, at a smaller input where asked for."""
    side = image_size // 16
    overrides = [f"++model.image_size={image_size}"]
    overrides += [
        f"++model.memory_attention.layer.{part}.feat_sizes=[{side},{side}]"
        for part in ("self_attention", "cross_attention")
    ]
    config = f"configs/sam2.1/sam2.1_hiera_{size}.yaml"
    network = build_sam2_video_predictor(config, device="cpu", hydra_overrides_extra=overrides)
    name = f"hiera_{size}"
    return Model(name, "sam2", seeded(network), image_size, "untrained-seed-0", CPU, getattr(torch, dtype))


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Stretch intensities between their 1st and 99th percentile to 0 to 255."""
    low, high = np.percentile(image, (1, 99))
    return (np.clip((image - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def simulated(depth: int, first: int, last: int, objects: int = 1) -> tuple[np.ndarray, dict]:
    """A simulated CT volume whose objects are cut to slices `first` to `last`."""
    case = phantom.simulate_case("ct", 3, shape=(depth, 192, 192))
    found = {}
    for name, value in case.objects.items():
        mask = case.labels == value
        mask[:first] = mask[last + 1 :] = False
        if mask.any() and len(found) < objects:
            found[name] = mask
    return to_uint8(case.image), found


def mni152() -> tuple[np.ndarray, dict]:
    """Every fourth axial slice of the MNI152 template at 2 mm, and the brain on it."""
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    image, mask = load_mni152_template(resolution=2), load_mni152_brain_mask(resolution=2)
    turned = [np.rot90(np.moveaxis(part.get_fdata(), 2, 0), axes=(1, 2))[::4] for part in (image, mask)]
    return to_uint8(turned[0]), {"brain": np.ascontiguousarray(turned[1] > 0)}


def drawn(objects: dict):
    """Return the prompts of these objects."""
    return lambda name, index, kind: prompt_3d(objects[name][index], kind, ("bench", name, index))


# --- measuring ------------------------------------------------------------------------------------


@contextmanager
def measured(network):
    """Count what the four expensive parts compute, and time them: the floor of any exact engine."""
    counts, seconds = Counter(), Counter()
    inner = {
        "encodes": network.image_encoder.trunk,
        "attention_steps": network.memory_attention.norm,
        "decodes": network.sam_mask_decoder.transformer,
        "memories": network.memory_encoder.fuser,
    }

    def timing(name, function):
        def timed(*inputs, **named_inputs):
            start = time.process_time()
            try:
                return function(*inputs, **named_inputs)
            finally:
                seconds[name] += time.process_time() - start

        return timed

    with ExitStack() as stack:
        for name, module in inner.items():
            hook = module.register_forward_hook(lambda *_, name=name: counts.update([name]))
            stack.callback(hook.remove)
        started = []
        attention = network.memory_attention
        before = attention.register_forward_pre_hook(lambda *_: started.append(time.process_time()))
        after = attention.register_forward_hook(
            lambda *_: seconds.update(attention=time.process_time() - started.pop())
        )
        stack.callback(before.remove)
        stack.callback(after.remove)
        for name in ("forward_image", "_forward_sam_heads", "_encode_new_memory"):
            setattr(network, name, timing(name, getattr(network, name)))
            stack.callback(delattr, network, name)
        yield counts, seconds


def run_engine(model, slices, objects, designs, **options) -> dict:
    """Run the engine and index its logits as `track_all` does."""
    items = engine.sweep(model, slices, objects, designs, drawn(objects), **options)
    return {
        (item.object_name, design, item.slice_index): item.logits for item in items for design in item.designs
    }


def warm_up(model: Model) -> None:
    """Let torch compile and allocate what it does once, outside the clock."""
    slices, objects = simulated(8, 3, 4)
    run_engine(model, slices, objects, PAPER_V1_DESIGNS[:2])


def mean_iou(found: dict, objects: dict) -> float:
    """Mean IoU with the truth over all designs and slices."""
    values = []
    for (name, _, index), logits in found.items():
        truth, mask = objects[name][index], logits > 0
        values.append(np.count_nonzero(truth & mask) / np.count_nonzero(truth | mask))
    return float(np.mean(values))


def compare_3d(model: Model, slices, objects, designs, *, attention: str = "exact") -> dict:
    """Run both sides and return a row."""
    warm_up(model)
    with measured(model.network) as (engine_counts, seconds):
        start = time.process_time()
        found = run_engine(model, slices, objects, designs, attention=attention)
        engine_s, floor_s = time.process_time() - start, sum(seconds.values())
    with (
        measured(model.network) as (loop_counts, _),
        redirect_stderr(open(os.devnull, "w", encoding="utf-8")),
    ):
        start = time.process_time()
        expected = track_all(model, slices, objects, designs, drawn(objects))
        loop_s = time.process_time() - start
    assert found.keys() == expected.keys()
    pixels = sum(logits.size for logits in expected.values())
    differing = sum(np.count_nonzero((found[key] > 0) != (expected[key] > 0)) for key in expected)
    return {
        "model": f"{model.name}, {model.checkpoint_sha256}",
        "dtype": str(model.dtype).removeprefix("torch."),
        "image_size": model.image_size,
        "slices": len(slices),
        "objects": len(objects),
        "designs": len(designs),
        "attention": attention,
        "loop_cpu_s": round(loop_s, 2),
        "engine_cpu_s": round(engine_s, 2),
        "cpu_ratio": round(loop_s / engine_s, 2),
        "floor_ratio": round(engine_s / floor_s, 3),
        "identical": all(np.array_equal(found[key], expected[key]) for key in expected),
        "differing_pixels": differing / pixels,
        "mean_iou_difference": mean_iou(found, objects) - mean_iou(expected, objects),
        "loop_counts": dict(loop_counts),
        "engine_counts": dict(engine_counts),
    }


def compare_2d(model: Model, slices, objects) -> dict:
    """Decode all modes of all objects on all slices that hold them, both ways."""
    prompts = {
        (name, int(index), mode, number): (int(index), prompt)
        for name, mask in objects.items()
        for index in np.flatnonzero(mask.any((1, 2)))
        for mode in MODES_2D
        for number, prompt in enumerate(prompts_2d(mask[index], mode, ("bench", name, int(index))))
    }
    warm_up(model)
    with measured(model.network) as (engine_counts, _):
        start = time.process_time()
        found = {key: masks for key, masks, _ in decode2d.candidates(model, slices, prompts)}
        engine_s = time.process_time() - start
    with measured(model.network) as (loop_counts, _):
        start = time.process_time()
        expected = decode_all(model, slices, prompts)
        loop_s = time.process_time() - start
    return {
        "model": f"{model.name}, {model.checkpoint_sha256}",
        "image_size": model.image_size,
        "objects": len(objects),
        "prompts": len(prompts),
        "loop_cpu_s": round(loop_s, 2),
        "engine_cpu_s": round(engine_s, 2),
        "cpu_ratio": round(loop_s / engine_s, 2),
        "identical": all(np.array_equal(found[key], expected[key]) for key in expected),
        "loop_counts": dict(loop_counts),
        "engine_counts": dict(engine_counts),
    }


def memory_of(depth: int) -> dict:
    """Peak memory of one process that sweeps a volume of this depth."""
    command = [sys.executable, "-m", "benchmarks.bench_engine", "--peak-of", str(depth)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {"slices": depth, **json.loads(answer.splitlines()[-1])}


def print_peak(depth: int) -> None:
    """Sweep a volume to its ends with two designs, and print this process's peak memory."""
    slices = np.random.default_rng(0).integers(0, 255, (depth, 256, 256)).astype(np.uint8)
    mask = np.zeros(slices.shape, bool)
    mask[depth // 3 : 2 * depth // 3, 90:160, 80:170] = True
    model, centre = miniature_model(), [d for d in PAPER_V1_DESIGNS if d.frame_choice == "centre_slice"]
    designs = [design for design in centre if design.prompt == "one_box"][:4]
    for _ in engine.sweep(model, slices, {"box": mask}, designs, drawn({"box": mask}), until="volume_end"):
        pass
    print(json.dumps({"peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))


def flop_table() -> dict:
    """Count the FLOPs of one tracked frame of hiera_l at 1024 pixels, and of whole grids from them."""
    from torch.utils.flop_counter import FlopCounterMode

    model = official_model("l", 1024, "float32")
    network = model.network
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        backbone = network.forward_image(torch.zeros(1, 3, 1024, 1024))
    encode = counter.get_total_flops() / 1e9
    _, levels, positions, _ = network._prepare_backbone_features(backbone)
    steps = {}
    for memories in (1, 2):
        tokens = 4096 * memories + 64
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network.memory_attention(
                curr=levels[-1:],
                curr_pos=positions[-1:],
                memory=torch.zeros(tokens, 1, 64),
                memory_pos=torch.zeros(tokens, 1, 64),
                num_obj_ptr_tokens=64,
            )
        steps[memories] = counter.get_total_flops() / 1e9
    slope = steps[2] - steps[1]
    step = steps[1] + 6 * slope + 3.6 + 11.6  # seven memories, decoder, memory encoder
    grids = {}
    for depth, first, last, objects in ((16, 2, 13, 1), (32, 5, 26, 1), (100, 30, 69, 1), (300, 100, 180, 4)):
        filled = last - first + 1
        loop_encodes = objects * (24 * depth + 36 + filled)
        loop_steps, engine_steps = objects * 24 * (depth - 1), objects * 12 * (2 * last - first)
        loop = loop_encodes * encode + loop_steps * step
        ours = (last + 1) * encode + engine_steps * step
        grids[f"{depth} slices, object on {first} to {last}, {objects} objects"] = round(loop / ours, 2)
    return {
        "encode_gflop": round(encode),
        "attention_gflop_first_memory": round(steps[1]),
        "attention_gflop_per_memory": round(slope, 1),
        "flop_ratio": grids,
    }


def growth() -> dict:
    """Time the engine against slices, objects and designs."""
    model, rows = miniature_model(), []
    warm_up(model)
    for depth, objects, designs in (
        (8, 1, 24),
        (16, 1, 24),
        (32, 1, 24),
        (16, 2, 24),
        (16, 1, 1),
        (16, 1, 64),
    ):
        slices, masks = simulated(depth, depth // 4, 3 * depth // 4, objects)
        chosen = {1: PAPER_V1_DESIGNS[:1], 24: PAPER_V1_DESIGNS, 64: ALL_DESIGNS}[designs]
        start = time.process_time()
        run_engine(model, slices, masks, chosen)
        seconds = round(time.process_time() - start, 2)
        rows.append({"slices": depth, "objects": len(masks), "designs": designs, "engine_cpu_s": seconds})
    return {"rows": rows}


# --- cases ----------------------------------------------------------------------------------------

CASES = {
    "3d_24_simulated_16": lambda: compare_3d(miniature_model(), *simulated(16, 3, 12), PAPER_V1_DESIGNS),
    "3d_64_simulated_16": lambda: compare_3d(miniature_model(), *simulated(16, 3, 12), ALL_DESIGNS),
    "3d_24_bfloat16_16": lambda: compare_3d(
        miniature_model("bfloat16"), *simulated(16, 3, 12), PAPER_V1_DESIGNS
    ),
    "3d_24_blocked_16": lambda: compare_3d(
        miniature_model("bfloat16"), *simulated(16, 3, 12), PAPER_V1_DESIGNS, attention="blocked"
    ),
    "3d_24_mni152": lambda: compare_3d(miniature_model(), *mni152(), PAPER_V1_DESIGNS),
    "2d_miniature": lambda: compare_2d(miniature_model(), *simulated(16, 2, 13, objects=6)),
    "2d_hiera_t_512": lambda: compare_2d(official_model("t", 512, "float32"), *simulated(6, 1, 4, objects=3)),
    "growth": growth,
    "flops_hiera_l_1024": flop_table,
    "memory_100": lambda: memory_of(100),
    "memory_300": lambda: memory_of(300),
    "3d_24_simulated_100": lambda: compare_3d(miniature_model(), *simulated(100, 30, 69), PAPER_V1_DESIGNS),
    "memory_1000": lambda: memory_of(1000),
    "3d_24_hiera_t_512": lambda: compare_3d(
        official_model("t", 512, "bfloat16"), *simulated(6, 1, 4), PAPER_V1_DESIGNS
    ),
    "3d_24_hiera_t_512_blocked": lambda: compare_3d(
        official_model("t", 512, "bfloat16"), *simulated(6, 1, 4), PAPER_V1_DESIGNS, attention="blocked"
    ),
    "3d_2_hiera_t_1024": lambda: compare_3d(
        official_model("t", 1024, "bfloat16"), *simulated(6, 1, 4), PAPER_V1_DESIGNS[-2:]
    ),
}
QUICK = {
    "quick_3d": lambda: compare_3d(miniature_model("float32", 128), *simulated(6, 1, 4), PAPER_V1_DESIGNS),
    "quick_2d": lambda: compare_2d(miniature_model("float32", 128), *simulated(6, 1, 4, objects=2)),
}


def main() -> None:
    """Run the cases that are asked for; fail if an exact one was not identical."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[*CASES, *QUICK], help="run these cases")
    parser.add_argument("--quick", action="store_true", help="two small cases, under a minute")
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*_C.*|.*jit.*")
    if options.peak_of:
        print_peak(options.peak_of)
        return
    known = CASES | QUICK
    rows = {}
    if RESULTS.exists():
        rows = {row["case"]: row for row in json.loads(RESULTS.read_text(encoding="utf-8"))}
    for case in options.only or (QUICK if options.quick else CASES):
        row = {"case": case, **known[case]()}
        row.setdefault("peak_rss_mb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        rows[case] = row
        print(json.dumps(row), flush=True)
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(list(rows.values()), indent=1), encoding="utf-8")
        if row.get("attention", "exact") == "exact" and row.get("identical") is False:
            sys.exit(f"{case}: the engine's predictions differ from the study's loop")


if __name__ == "__main__":
    main()
