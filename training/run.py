"""Training from scratch by one command: stages with a time budget, resumable, on CPUs or a GPU.

    python -m training train training/plans/sam2.yaml --out runs/miniature/sam2

A plan lists stages; each has a budget in minutes, and its learning rate falls with the used share of
that budget, so a stage always ends with its decay.  State (weights, average, optimisers, stage, step, clock,
random state) is written every minute; the same command continues after a kill.  On a CPU, two
single-threaded ranks average their gradients; on a GPU one process takes larger batches.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed
import yaml
from tqdm import tqdm

from medsam_nb.finetuning import sequence_steps, steps
from medsam_nb.models import miniature
from training import batches, held_out, initialisation, label_volumes, samples
from training.curves import HELD_OUT_COLUMNS, LOSS_COLUMNS, Log, draw_curves
from training.plan import Plan, Stage, as_content, fading, learning_rate, read_plan
from training.weights import Averager, Trained, build, denormals_as_zero, has_memory

SAVE_SECONDS = 60


class Trainer:
    """One rank of a training run."""

    def __init__(self, plan: Plan, out: Path, device: str, rank: int, ranks: int):
        self.plan, self.out, self.device, self.rank, self.ranks = plan, out, device, rank, ranks
        self.state = {"stage": 0, "step": 0, "clock": 0.0, "total": 0.0, "memory_ready": has_memory(plan)}
        self.saved = None
        path = out / "state.pt"
        if path.is_file():
            self.saved = torch.load(path, map_location="cpu", weights_only=True)
            if self.saved["study"] != plan.model:
                raise ValueError(f"{path} holds a run of {self.saved['study']!r}: choose another folder")
            self.state = self.saved["state"]
        self.losses = Log(out / "losses.csv", LOSS_COLUMNS)
        self.scores = Log(out / "held_out.csv", HELD_OUT_COLUMNS)
        self.held = samples.open_pool(Path(plan.pool) / "pool_validation.npy")

    def run(self, rendezvous: str) -> None:
        """Run the stage at which the state stands (to its end)."""
        torch.manual_seed(self.plan.seed)
        average = self.saved["average"] if self.saved else build(self.plan, miniature.IMAGE_SIZE).state_dict()
        average = self.run_stage(self.plan.stages[self.state["stage"]], average, rendezvous)
        self.state.update(stage=self.state["stage"] + 1, step=0, clock=0.0)
        self.save(average)
        if self.rank == 0 and self.state["stage"] == len(self.plan.stages):
            digest = initialisation.save_state(average, self.out / "final.pt")
            print(f"weights: {self.out / 'final.pt'} sha256 {digest}")

    def prepare_memory(self, model, source: batches.Batches) -> None:
        """Structured initialisation of the memory attention, from the same images on every rank."""
        pool = samples.open_pool(source.pool_path)
        images = batches.image_batch(pool, np.random.default_rng(self.plan.seed), source.options)["images"]
        with torch.no_grad():
            initialisation.initialise_memory(model, steps.encode(model, images.to(self.device)).embedding)
        self.state["memory_ready"] = True

    def run_stage(self, stage: Stage, average: dict, rendezvous: str) -> dict:
        """Train one stage (or what is left of it); returns the averaged weights."""
        state, saved = self.state, self.saved
        options = replace(stage.samples, rules=stage.rules)
        model = build(self.plan, options.size).to(self.device)
        model.load_state_dict(average)
        head = steps.metric_head(model).to(self.device)
        seed = self.plan.seed * 1000 + state["stage"]
        source = batches.Batches(
            Path(self.plan.pool) / "pool_train.npy", options, seed, self.rank, first_step=state["step"]
        )
        loader = self.loader(source)
        batch = next(loader)  # the clock starts when data flow
        if self.ranks > 1:
            # Only now: a process that already runs communication threads must not fork its loader.
            torch.distributed.init_process_group(
                "gloo", init_method=rendezvous, rank=self.rank, world_size=self.ranks
            )
        if options.video_fraction > 0 and not state["memory_ready"]:
            self.prepare_memory(model, source)
        trained = Trained(model, head, stage)
        if saved and saved["model"]:
            trained.load(saved)
        synchronise = Averager(trained.parameters, self.ranks, self.rank)
        started, began_at, last_save = time.monotonic(), state["clock"], time.monotonic()
        used = min(0.999, state["clock"] / (60 * stage.minutes))
        bar = tqdm(
            total=100,
            initial=int(100 * used),
            desc=stage.name,
            disable=self.rank > 0,
            mininterval=10,
            unit="%",
        )
        parent = multiprocessing.parent_process()
        while used < 1:
            if parent is not None and not parent.is_alive():
                raise SystemExit("the command that started this rank is gone; give it again to go on")
            batch = {k: v.to(self.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
            lr = learning_rate(stage, state["step"], used)
            loss, parts = self.loss(model, head, batch, stage, seed)
            loss.backward()
            clock = synchronise(began_at + time.monotonic() - started)
            trained.update(state["step"], lr)
            before, used = used, clock / (60 * stage.minutes)
            state.update(step=state["step"] + 1, clock=clock)
            bar.update(max(0, min(100, int(100 * used)) - bar.n))
            if self.rank == 0 and state["step"] % 10 == 0:
                bar.set_postfix_str(f"step {state['step']} loss {loss.item():.3f}", refresh=False)
                row = {"minutes": state["total"] + clock / 60, "stage": stage.name, "step": state["step"],
                       "used": used, "lr": lr, "loss": loss.item(), **parts}  # fmt: skip
                self.losses.write(row)
            if int(before * stage.evaluations) != int(used * stage.evaluations):
                self.evaluate(stage, trained.average, options, clock)
            if self.rank == 0 and time.monotonic() - last_save > SAVE_SECONDS:
                self.save(trained.average.state_dict(), trained)
                last_save = time.monotonic()
            batch = next(loader)
        bar.close()
        state["total"] += state["clock"] / 60
        return trained.average.state_dict()

    def loader(self, source: batches.Batches) -> Iterator[dict]:
        """Return batches, made beside the training by one process where that pays."""
        # A single CPU process gains nothing from a loader beside it; a GPU's must not be forked.
        workers = 0 if self.ranks == 1 and self.device == "cpu" else 1
        context = ("fork" if self.ranks > 1 else "spawn") if workers else None
        return iter(
            torch.utils.data.DataLoader(
                source,
                batch_size=None,
                num_workers=workers,
                prefetch_factor=4 if workers else None,
                multiprocessing_context=context,
            )
        )

    def loss(self, model, head, batch, stage: Stage, seed: int):
        step = self.state["step"]
        if batch["kind"] == "video":
            balanced = fading(step, stage.video_balanced)
            return sequence_steps.video_step(
                model,
                batch,
                balanced=balanced,
                presence_weight=stage.presence_weight,
                encoder_grad=stage.encoder_grad,
            )
        shared = batches.step_generator(seed, step)
        shared.random()
        correct = shared if shared.random() < stage.correct else None
        return steps.image_step(
            model,
            head,
            batch,
            balanced=fading(step, stage.balanced),
            aux_weight=stage.aux_weight,
            correct=correct,
        )

    def evaluate(self, stage: Stage, model, options: samples.SampleOptions, clock: float) -> None:
        """Held-out IoU, shared among the ranks, to `held_out.csv` and the figure."""
        model.eval()
        mine = range(self.rank, held_out.IMAGES, self.ranks)
        found = held_out.image_scores(model, self.held, options.size, mine, self.device)
        if self.plan.model == "sam2" and self.state["memory_ready"]:
            mine = range(self.rank, held_out.SEQUENCES, self.ranks)
            found |= held_out.video_scores(model, self.held, options.size, mine, self.device)
        names = sorted(found)
        sums = torch.tensor([[sum(found[n]), len(found[n])] for n in names], dtype=torch.float64)
        if self.ranks > 1:
            torch.distributed.all_reduce(sums)
        means = {n: float(s / max(1.0, float(c))) for n, (s, c) in zip(names, sums, strict=True)}
        if self.rank == 0:
            minutes = self.state["total"] + clock / 60
            self.scores.write({"minutes": minutes, "stage": stage.name, "step": self.state["step"], **means})
            tqdm.write(
                f"{minutes:.1f} min {stage.name}: " + " ".join(f"{k} {v:.3f}" for k, v in means.items())
            )
            draw_curves(self.out)

    def save(self, average: dict, trained: Trained | None = None) -> None:
        """Write the state from which the same command goes on: in a stage (`trained`) or between two."""
        if self.rank != 0:
            return
        content = {"study": self.plan.model, "state": dict(self.state), "average": average}
        for name in ("model", "head", "muon", "adam"):
            content[name] = getattr(trained, name).state_dict() if trained else None
        partial = self.out / "state.pt.partial"
        torch.save(content, partial)
        os.replace(partial, self.out / "state.pt")


def _work(rank: int, ranks: int, plan: Plan, out: Path, device: str, rendezvous: str) -> None:
    if device == "cpu":
        torch.set_num_threads(1)
    with denormals_as_zero() if device == "cpu" else nullcontext():
        Trainer(plan, out, device, rank, ranks).run(rendezvous)
    if ranks > 1:
        torch.distributed.destroy_process_group()


def _stages_done(out: Path) -> int:
    path = out / "state.pt"
    return torch.load(path, map_location="cpu", weights_only=True)["state"]["stage"] if path.is_file() else 0


def train(plan_path: Path, out_dir: Path, minutes: float | None = None, device: str | None = None) -> Path:
    """Train (or continue) a plan and return the path of the averaged weights.

    Parameters
    ----------
    plan_path : pathlib.Path
    out_dir : pathlib.Path
        Receives `state.pt`, `losses.csv`, `held_out.csv`, `training_curve.png` and `final.pt`.
    minutes : float, optional
        Total budget; the stages keep their proportions.
    device : str, optional
        "cpu" or "cuda"; CUDA when available.

    Returns
    -------
    pathlib.Path
    """
    plan, out = read_plan(Path(plan_path), minutes), Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    (out / "plan.yaml").write_text(yaml.safe_dump(as_content(plan), sort_keys=False), encoding="utf-8")
    pool = Path(plan.pool)
    samples.build_pool(pool / "pool_train.npy", label_volumes.TRAIN_SEED_BASE, plan.volumes)
    samples.build_pool(pool / "pool_validation.npy", label_volumes.VALIDATION_SEED_BASE, 24)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    ranks = plan.ranks if device == "cpu" else 1
    while (stage := _stages_done(out)) < len(plan.stages):
        with tempfile.TemporaryDirectory() as folder:
            rendezvous = (Path(folder) / f"stage_{stage}").as_uri()
            if ranks == 1:
                _work(0, 1, plan, out, device, rendezvous)
            else:
                # Spawned: a caller that has used threads (a notebook, a test) must not be forked.
                torch.multiprocessing.spawn(_work, args=(ranks, plan, out, device, rendezvous), nprocs=ranks)
    return out / "final.pt"
