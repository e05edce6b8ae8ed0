"""What a GPU changes: identity with the package, both baselines, what might still help.

    python -m benchmarks.gpu [--size l] [--slices 16] [--steps identity transform ...]

Official architecture with seeded random weights, bfloat16, 1024 pixels. `--device cpu --size miniature` is a
rehearsal that says nothing of a GPU. The table goes to runs/bench/gpu.md, the rows to runs/bench/gpu.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.batching import batching
from benchmarks.bench_engine import compare_3d, run_engine, warm_up
from benchmarks.inputs import Scan, miniature_model, official_model, simulated
from benchmarks.measure import clock_of
from medsam_nb.files import write_atomically
from medsam_nb.models import compiling
from medsam_nb.models.checkpoints import Model, describe_device
from medsam_nb.models.encoding import encoder_of
from medsam_nb.models.features import SliceFeatures
from medsam_nb.protocol.designs import ALL_DESIGNS, PAPER_V1_DESIGNS

RESULTS = Path("runs/bench")
MODES = [
    {"kernels": kernels, "branches_at_once": most} for kernels in ("eager", "compiled") for most in (1, 4, 16)
]
REPEATS = 5


class Setting:
    """What all steps measure: a model and a volume, made anew wherever they are asked for."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.make_volume = simulated(options.slices, options.slices // 5, 3 * options.slices // 4)

    def make_model(self) -> Model:
        if self.options.size == "miniature":
            return miniature_model(image_size=self.options.side)
        device = torch.device(self.options.device)
        return official_model(self.options.size, self.options.side, "bfloat16", device)

    def both(self, stack: ExitStack) -> tuple[Model, Scan]:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        model = self.make_model()
        return model, self.make_volume(model.image_size, Path(folder) / "slices")


def identity(setting: Setting) -> Iterator[dict]:
    """Compare the engine with the careful user and the study's loop: masks and time, for 24 designs."""
    if setting.options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for row in compare_3d(setting.make_model, setting.make_volume, PAPER_V1_DESIGNS):
        if setting.options.device == "cuda":
            row["peak_gpu_mb"] = torch.cuda.max_memory_allocated() >> 20
        yield row


def transform(setting: Setting) -> Iterator[dict]:
    """Time a slice's resize on a CPU thread, its encoding, and both for a volume: one by one, and ahead."""
    with ExitStack() as stack:
        model, volume = setting.both(stack)
    now, encoder = clock_of(model.network), encoder_of(model)
    picture = volume.slices[len(volume.slices) // 2]
    image = encoder.prepare(picture)
    encoder.encode(image)
    for name, call in (
        ("resize", partial(encoder.prepare, picture)),
        ("encode", partial(encoder.encode, image)),
    ):
        yield {"part": name, "ms": 1000 * _least(call, now)}
    for ahead in (False, True):
        seconds = _least(partial(_encode_all, model, volume, ahead), now)
        name = f"both, {'ahead' if ahead else 'one by one'}"
        yield {"part": name, "ms": 1000 * seconds / len(volume.slices)}


def _encode_all(model: Model, volume: Scan, ahead: bool) -> None:
    features = SliceFeatures(model, volume.slices, ahead=ahead)
    features.expect(range(len(volume.slices)))
    for index in range(len(volume.slices)):
        features[index]


def _least(call: Callable, now: Callable[[], float]) -> float:
    """Return the shortest of several times of a call, s."""
    times = []
    for _ in range(REPEATS):
        start = now()
        call()
        times.append(now() - start)
    return min(times)


def modes(setting: Setting) -> Iterator[dict]:
    """Sweep as it is, with several branches at once, and compiled: time, memory, and pixels that differ."""
    compiling.BACKEND = setting.options.backend
    with ExitStack() as stack:
        model, volume = setting.both(stack)
        now, found = clock_of(model.network), {}
        warm_up(model, volume)
        for mode in MODES:
            if setting.options.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            name, start = ", ".join(map(str, mode.values())), now()
            run_engine(model, volume, ALL_DESIGNS, **mode)  # all shapes are compiled in it
            first, start = now() - start, now()
            found[name] = run_engine(model, volume, ALL_DESIGNS, **mode)
            row = {"kernels, branches at once": name, "first_s": first, "again_s": now() - start}
            if setting.options.device == "cuda":
                row["peak_gpu_mb"] = torch.cuda.max_memory_allocated() >> 20
            yield row | _differing(found, name)


def _differing(found: dict[str, dict], mode: str) -> dict[str, float]:
    exact = next(iter(found.values()))
    pairs = [(found[mode][key] > 0, logits > 0) for key, logits in exact.items()]
    return {"differing_pixels": float(np.mean([np.mean(one != other) for one, other in pairs]))}


def processes(setting: Setting) -> Iterator[dict]:
    """Sweep in one, two and three processes on one device at the same time: volumes in an hour."""
    for count in (1, 2, 3):
        command = [sys.executable, "-m", "benchmarks.gpu", "--alone", *setting.options.given]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
        spans = [json.loads(each.communicate()[0].splitlines()[-1]) for each in running]
        assert not any(each.returncode for each in running)
        seconds = max(end for _, end in spans) - min(start for start, _ in spans)
        yield {"processes": count, "seconds": seconds, "volumes_an_hour": 3600 * REPEATS * count / seconds}


def alone(setting: Setting) -> None:
    """Be one of these processes: sweep several times, and print when that began and ended."""
    with ExitStack() as stack:
        model, volume = setting.both(stack)
        warm_up(model, volume)
        start, now = time.time(), clock_of(model.network)
        for _ in range(REPEATS):
            run_engine(model, volume, PAPER_V1_DESIGNS)
        now()
    print(json.dumps([start, time.time()]))


def batches(setting: Setting) -> Iterator[dict]:
    """Time parts of a tracked slice for several branches at once."""
    yield from batching(setting.make_model, setting.make_volume)


STEPS = {step.__name__: step for step in (identity, transform, modes, processes, batches)}


def main() -> None:
    """Measure what is asked for; fail if the engine's masks are not the package's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=("t", "s", "b+", "l", "miniature"), default="l")
    parser.add_argument("--side", type=int, default=1024, help="pixels of the network's input")
    parser.add_argument("--slices", type=int, default=16)
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.given = [
        f"--{name}={getattr(options, name)}" for name in ("device", "size", "side", "slices", "backend")
    ]
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("benchmarks.gpu: there is no CUDA device. `--device cpu --size miniature` is a rehearsal.")
    setting = Setting(options)
    if options.alone:
        alone(setting)
        return
    facts = describe_device(options.device) | {"torch": torch.__version__, "model": " ".join(options.given)}
    tables, rows = [f"{facts}\n"], []
    for name in options.steps:
        measured = list(STEPS[name](setting))
        rows += [{"step": name} | facts | row for row in measured]
        table = (
            pd.json_normalize(measured).dropna(axis=1, how="all").T.to_string(float_format="{:.4g}".format)
        )
        tables.append(f"## {name}\n\n{STEPS[name].__doc__}\n\n```\n{table}\n```\n")
        print(tables[-1], flush=True)
        write_atomically(RESULTS / "gpu.json", json.dumps(rows, indent=1, default=str).encode())
        write_atomically(RESULTS / "gpu.md", "\n".join(tables).encode())
    if any(row.get("identical") is False for row in rows):
        sys.exit("benchmarks.gpu: the engine's predictions differ from those of the package")


if __name__ == "__main__":
    main()
