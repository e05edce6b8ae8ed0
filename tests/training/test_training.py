"""Training code: samples, losses, optimiser, resuming; all real, all small."""

import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch
import yaml

from medsam_nb.evaluation import reference
from medsam_nb.finetuning import losses, sequence_steps, steps, targets
from medsam_nb.models import miniature
from medsam_nb.models.checkpoints import EMBEDDED_WEIGHTS, Model, read_weights
from medsam_nb.protocol.designs import Design, prompted_slices
from medsam_nb.protocol.prompts import Prompt, tight_box
from training import appearance, batches, initialisation, label_volumes, run
from training import samples as data
from training.muon import build_optimisers, orthogonalise
from training.plan import Plan, Stage, read_plan
from training.weights import build, denormals_as_zero


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    path = tmp_path_factory.mktemp("pool") / "pool_train.npy"
    data.build_pool(path, label_volumes.TRAIN_SEED_BASE, 4, workers=1)
    data.build_pool(path.with_name("pool_validation.npy"), label_volumes.VALIDATION_SEED_BASE, 4, workers=1)
    return path


def test_batches_repeat_and_ranks_differ_but_agree_on_the_kind(pool):
    options = data.SampleOptions(size=128, images=2, videos=1, slices=3, video_fraction=0.5)
    opened = data.open_pool(pool)
    first, again, other = (batches.Batches(pool, options, 3, rank) for rank in (0, 0, 1))
    kinds = []
    for step in range(6):
        a, b, c = (source.batch(opened, step) for source in (first, again, other))
        assert a["kind"] == b["kind"] == c["kind"]
        assert torch.equal(a["images"], b["images"]) and not torch.equal(a["images"], c["images"])
        kinds.append(a["kind"])
    assert set(kinds) == {"image", "video"}


def test_prompts_lie_where_they_should(pool):
    rng = np.random.default_rng(0)
    opened = data.open_pool(pool)
    for _ in range(10):
        image, masks, labels = data.image_sample(opened, rng, data.SampleOptions(size=128))
        assert image.min() >= 0 and image.max() <= 1 and labels.shape == image.shape
        for mask in masks:
            x, y = targets.sample_point(mask, rng).astype(int)
            assert mask[y, x]
            assert mask.sum() >= 40 and mask.sum() <= 0.7 * mask.size


def test_every_sequence_shows_its_object_on_the_prompted_slice(pool):
    rng = np.random.default_rng(1)
    opened = data.open_pool(pool)
    absent = 0
    for _ in range(8):
        batch = batches.video_batch(opened, rng, data.SampleOptions(size=128, videos=1, slices=5))
        assert batch["masks"][:, batch["prompted"]].any(dim=-1).any(dim=-1).all()
        absent += int((~batch["masks"].any(dim=-1).any(dim=-1)).sum())
    assert absent > 0


def test_an_invisible_object_is_no_target():
    image = np.full((128, 128), 0.5, np.float32)
    mask = np.zeros((128, 128), bool)
    mask[40:80, 40:80] = True
    assert not targets.is_visible(image, mask)
    image[mask] = 0.7
    assert targets.is_visible(image, mask)
    assert targets.fill_holes(mask & ~np.pad(np.ones((10, 10), bool), 59)).sum() == mask.sum()


def test_rules_admit_smaller_thinner_targets_and_exact_boxes():
    rng, small, thin = np.random.default_rng(0), np.zeros((256, 256), bool), np.zeros((256, 256), bool)
    small[10:15, 10:16] = True
    thin[50, 20:220] = True
    rules = targets.Rules(least_share=0.0004, least_pixels=24, thin=1.0, exact_boxes=1.0)
    assert targets.clean_target(small, rng, targets.Rules()) is None
    assert np.array_equal(targets.clean_target(small, rng, rules), small)
    assert not targets.is_acceptable(thin, rng, targets.Rules(thin=0.0))
    assert targets.is_acceptable(thin, rng, rules)
    assert np.array_equal(targets.sample_box(small, rng, rules), [10, 10, 15, 14])


def test_a_coarse_sample_is_one_of_larger_pixels():
    rng, truth = np.random.default_rng(0), np.zeros((1, 1, 256, 256), bool)
    truth[0, 0, 40:121, 60:150] = True
    image = rng.random((1, 256, 256), dtype=np.float32)
    pixel = 256 / 100
    shown, masks = appearance.coarsened(image, truth, 100)
    assert shown.shape == image.shape and masks.shape == truth.shape and masks.dtype == bool
    assert shown.std() < 0.6 * image.std() and abs(shown.mean() - image.mean()) < 0.01
    steps_at = np.flatnonzero(np.diff(masks[0, 0].any(axis=0).astype(int))) + 1
    assert np.abs(steps_at / pixel - np.round(steps_at / pixel)).max() * pixel <= 0.5
    box = targets.sample_box(masks[0, 0], rng, targets.Rules(exact_boxes=1.0), pixel)
    assert np.allclose(box / pixel, np.round(box / pixel), atol=1e-3)
    # The first pixel's index is where it begins, the last one's is a pixel before it ends.
    ends = np.flatnonzero(masks[0, 0].any(axis=0))[[0, -1]]
    assert abs(ends[0] - box[0]) <= 0.5 and pixel - 1.5 <= ends[1] - box[2] <= pixel


def test_coarse_samples_keep_small_targets():
    images, masks = np.zeros((1, 256, 256), np.float32), np.zeros((1, 1, 256, 256), bool)
    masks[0, 0, 101:107, 50:56] = True  # 36 pixels, of which pixels of other sizes leave more or fewer
    options = data.SampleOptions(size=256, coarse=1.0, rules=targets.Rules(0.0005, 24))
    areas = []
    for seed in range(60):
        _, coarse, pixel = batches.random_pixel(images, masks, 0, np.random.default_rng(seed), options)
        assert coarse.sum() >= options.rules.least(256) and (pixel > 1 or np.array_equal(coarse, masks))
        areas.append(int(coarse.sum()))
    assert len(set(areas)) > 3


def test_the_whole_body_can_be_asked_for():
    volumes = np.zeros((1, 4, 256, 256), np.uint8)
    ys, xs = np.mgrid[:256, :256]
    for label, radius in ((1, 80), (2, 65), (3, 20)):
        volumes[:, :, np.hypot(ys - 128, xs - 128) < radius] = label
    pool = data.Pool(volumes, [[[3], [2, 3]]])
    for share in (0.0, 1.0):
        options = data.SampleOptions(size=128, objects=1, whole_body=share)
        samples = [data.image_sample(pool, np.random.default_rng(seed), options) for seed in range(20)]
        with_shell = [mask[labels == 1].any() for _, (mask,), labels in samples if labels.min() >= 0]
        assert any(with_shell) == (share == 1.0)
    # No object of this volume can be found in it, only the body.
    options = data.SampleOptions(size=128, slices=4, whole_body=1.0)
    _, masks, _ = data.video_sample(data.Pool(volumes, [[[9]]]), np.random.default_rng(0), options)
    assert masks.any(axis=(2, 3)).all()


def test_a_warm_start_takes_over_what_fits():
    shipped = EMBEDDED_WEIGHTS / "miniature_sam2.pt"
    given = read_weights(shipped)
    for model, prefix in (("sam2", "sam_mask_decoder."), ("sam", "mask_decoder.")):
        plan = Plan(model, (Stage("s", 1),), start_from=str(shipped))
        own = build(plan, 256).state_dict()
        name = "transformer.layers.0.self_attn.q_proj.weight"
        assert torch.equal(own[prefix + name], given["sam_mask_decoder." + name])


def test_losses_at_known_points():
    target = torch.zeros(1, 8, 8)
    target[0, 2:6, 2:6] = 1
    perfect = (target[:, None] * 40 - 20).expand(1, 4, 8, 8)
    assert float(losses.mask_loss(perfect, target).max()) < 1e-3
    assert float(losses.mask_loss(-perfect, target).min()) > 5
    assert losses.mask_iou(perfect, target).tolist() == [[1.0] * 4]
    empty = torch.full((1, 4, 8, 8), -5.0)
    assert losses.mask_iou(empty, torch.zeros(1, 8, 8)).tolist() == [[1.0] * 4]
    scores = torch.ones(1, 4)
    sure, wrong = (losses.slice_loss(empty, scores, torch.tensor([[p]]), target * 0) for p in (-9.0, 9.0))
    assert float(sure) < 1e-3 and abs(float(wrong) - 9) < 0.01
    with pytest.raises(ValueError, match="unknown prompt kind"):
        losses.prompt_loss(perfect, scores, None, target, "scribble")


def test_muon_updates_are_nearly_orthogonal():
    torch.manual_seed(0)
    for shape in ((3, 16, 64), (2, 64, 16)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(*shape)))
        assert float(values.min()) > 0.5 and float(values.max()) < 1.4


@pytest.mark.parametrize("build_model", [miniature.build_sam2, miniature.build_sam])
def test_both_models_learn_from_an_image_batch(pool, build_model):
    torch.manual_seed(0)
    model = build_model(128).train()
    initialisation.initialise_prompting(model)
    head = steps.metric_head(model)
    batch = batches.image_batch(data.open_pool(pool), np.random.default_rng(0), data.SampleOptions(images=2))
    muon, adam = build_optimisers(model, head, 1e-3)
    values = []
    for _ in range(8):
        loss, parts = steps.image_step(model, head, batch, balanced=1.0, correct=np.random.default_rng(1))
        muon.zero_grad()
        adam.zero_grad()
        loss.backward()
        muon.step()
        adam.step()
        values.append(loss.item())
    assert values[-1] < 0.9 * values[0], values
    assert set(parts) == {"box", "point", "box_iou", "point_iou", "metric"}


@pytest.mark.parametrize("encoder_grad", [False, True])
def test_sequences_train_the_encoder_only_where_a_stage_says_so(pool, tmp_path, encoder_grad):
    samples = {"size": 128, "videos": 1, "slices": 3, "video_fraction": 1.0}
    stage = Stage("sequences", 1, encoder_grad=encoder_grad, samples=samples)
    plan = {"model": "sam2", "ranks": 1, "volumes": 4, "pool": str(pool.parent), "stages": []}
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan), encoding="utf-8")
    trainer = run.Trainer(read_plan(path), tmp_path, "cpu", 0, 1)
    model = miniature.build_sam2(128).train()
    batch = batches.video_batch(data.open_pool(pool), np.random.default_rng(3), data.SampleOptions(**samples))
    loss, _ = trainer.loss(model, None, batch, stage, seed=0)
    loss.backward()
    learning = [p.grad is not None and bool(p.grad.any()) for p in model.image_encoder.parameters()]
    assert any(learning) is encoder_grad


def test_training_resumes_where_it_was_stopped(pool, tmp_path, monkeypatch):
    plan = {
        "model": "sam2",
        "ranks": 1,
        "volumes": 4,
        "pool": str(pool.parent),
        "stages": [
            {"name": "first", "minutes": 0.05, "evaluations": 1, "samples": {"images": 1}},
            {"name": "second", "minutes": 0.06, "samples": {"videos": 1, "slices": 3, "video_fraction": 1.0}},
        ],
    }
    monkeypatch.setattr(run, "SAVE_SECONDS", 0)
    monkeypatch.setattr(run.held_out, "IMAGES", 2)
    monkeypatch.setattr(run.held_out, "SEQUENCES", 1)
    path, out = tmp_path / "plan.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(plan), encoding="utf-8")
    work, calls = run.Trainer.loss, []

    def stopped(self, *args):
        calls.append(self.state["step"])
        if self.state["stage"] == 1 and self.state["step"] == 2:
            raise KeyboardInterrupt
        return work(self, *args)

    monkeypatch.setattr(run.Trainer, "loss", stopped)
    with pytest.raises(KeyboardInterrupt):
        run.train(path, out, device="cpu")
    saved = torch.load(out / "state.pt", weights_only=True)
    assert saved["state"]["stage"] == 1 and saved["state"]["step"] == 2 and saved["state"]["clock"] > 0
    monkeypatch.setattr(run.Trainer, "loss", work)
    final = run.train(path, out, device="cpu")
    miniature.build_sam2().load_state_dict(torch.load(final, weights_only=True))
    assert torch.load(out / "state.pt", weights_only=True)["state"]["stage"] == 2
    assert (out / "held_out.csv").read_text(encoding="utf-8").count("\n") >= 3 and (
        out / "training_curve.png"
    ).is_file()


def test_two_ranks_train_together_and_end_with_the_command_that_started_them(pool, tmp_path):
    plan = {
        "model": "sam2",
        "ranks": 2,
        "volumes": 4,
        "pool": str(pool.parent),
        "stages": [{"name": "only", "minutes": 10, "samples": {"images": 1}}],
    }
    path, out = tmp_path / "plan.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(plan), encoding="utf-8")
    command = [sys.executable, "-m", "training", "train", str(path), "--out", str(out), "--device", "cpu"]
    started = psutil.Popen(command, stderr=subprocess.DEVNULL)
    ranks = []
    try:
        log, until = out / "losses.csv", time.monotonic() + 120
        while not (log.is_file() and log.read_text(encoding="utf-8").count("\n") >= 2):
            assert started.poll() is None and time.monotonic() < until, "no step was logged"
            time.sleep(0.5)
        ranks = started.children(recursive=True)
        started.kill()
        _, alive = psutil.wait_procs(ranks, timeout=60)
        assert len(ranks) >= 2 and not alive
    finally:
        for process in [started, *ranks]:
            if process.is_running():
                process.kill()


@pytest.mark.parametrize(("weights", "ready"), [("miniature_sam2", True), ("miniature_sam", False)])
def test_a_trained_memory_is_not_initialised_again(pool, tmp_path, weights, ready):
    plan = {"model": "sam2", "ranks": 1, "volumes": 4, "pool": str(pool.parent), "stages": []}
    plan["start_from"] = str(EMBEDDED_WEIGHTS / f"{weights}.pt")
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan), encoding="utf-8")
    trainer = run.Trainer(read_plan(path), tmp_path, "cpu", 0, 1)
    assert trainer.state["memory_ready"] is ready


@pytest.mark.parametrize("kind", ["mask", "one_box"])
@pytest.mark.parametrize("direction", ["bidirectional", "front_to_end"])
def test_sequences_are_tracked_as_the_designs_are(pool, direction, kind, monkeypatch):
    """The training's own tracker, in evaluation mode, finds what the official predictor finds."""
    network = miniature.build_sam2(128)
    network.load_state_dict(read_weights(EMBEDDED_WEIGHTS / "miniature_sam2.pt"))
    options = data.SampleOptions(size=128, slices=16)
    images, (mask, *_), _ = data.video_sample(data.open_pool(pool), np.random.default_rng(2), options)
    slices = (images * 255).astype(np.uint8)
    design = Design("centre_slice", kind, direction, "most_confident_mask")
    (prompted,) = prompted_slices(mask.sum((1, 2)), design.frame_choice)
    model = Model("miniature", "sam2", network, 128, "test", torch.device("cpu"), torch.float32)
    drawn = Prompt(mask=mask[prompted]) if kind == "mask" else Prompt(box=tight_box(mask[prompted]))
    prompt = sequence_steps.video_prompt(
        {
            "prompt": kind.removeprefix("one_"),
            "prompted": prompted,
            "masks": torch.from_numpy(mask)[None],
            "boxes": torch.tensor([tight_box(mask[prompted])]),
        }
    )
    encode = network._encode_new_memory

    def as_the_predictor_keeps_it(*args, **kwargs):
        features, positions = encode(*args, **kwargs)
        return features.to(torch.bfloat16).float(), positions

    with torch.no_grad(), monkeypatch.context() as patch:
        patch.setattr(network, "_encode_new_memory", as_the_predictor_keeps_it)
        features = sequence_steps.encode_sequences(network, torch.from_numpy(slices / np.float32(255))[None])
        found = sequence_steps.track(
            network, features, torch.tensor([0]), prompted, prompt, direction == "front_to_end"
        )
    compared = 0
    for item in reference.sweep(model, slices, {"object": mask}, [design], lambda *_: drawn):
        if item.prompted:
            continue
        logits, scores, presence = found[item.slice_index]
        best = logits[:, 1:][0, scores[0, 1:].argmax()]
        shown = torch.nn.functional.interpolate(best[None, None], (128, 128), mode="bilinear")[0, 0] > 0
        shown &= presence[0, 0] > 0
        # Only a logit within rounding of zero may fall on the other side.
        assert (shown.numpy() != item.mask).sum() <= 2
        compared += int(item.mask.any())
    assert compared >= 4


def test_training_leaves_the_smallest_numbers_as_they_were():
    """The processor's setting would otherwise change what NumPy computes later in this process."""
    smallest = np.array(5e-324)
    with denormals_as_zero():
        assert smallest * 1.0 == 0
    assert smallest * 1.0 > 0
