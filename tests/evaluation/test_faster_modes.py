"""Modes that are meant for a GPU and not bit-identical: only on request, and close to the package."""

import shutil

import numpy as np
import pytest
import torch
from helpers import networks
from helpers.volumes import HEIGHT, WIDTH, blob, counted
from hypothesis import given, settings
from hypothesis import strategies as st

from medsam_nb.errors import StudyError
from medsam_nb.evaluation import propagation
from medsam_nb.evaluation.scoring import Counts, on_device, on_host
from medsam_nb.models import compiling
from medsam_nb.protocol.designs import ALL_DESIGNS, Design
from medsam_nb.protocol.metrics import iou
from medsam_nb.protocol.options import MemoryWindow, PropagationOptions

POINT = Design("centre_slice", "one_point", "bidirectional", "most_confident_mask")
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.3}  # of logits, in their spread


@pytest.fixture
def volume():
    """Return slices with two objects of unlike places and sizes."""
    slices = networks.textured_slices(9, HEIGHT, WIDTH, 5)
    return slices, {"organ": blob(9, range(1, 8), 6), "tumour": blob(9, [3, 4, 5], 2)}


def predicted(model, volume, designs, **options):
    slices, objects = volume
    prompt_of, options = networks.drawn_prompt(objects), PropagationOptions(**options)
    return networks.predictions(propagation.sweep, model, slices, objects, designs, prompt_of, options)


def assert_close(found, expected, dtype):
    """Compare predictions; where two candidates are equally good the choice may differ, but for few."""
    assert found.keys() == expected.keys()
    spread = np.std([logits for logits, _, _ in expected.values()])
    far = [np.abs(found[key][0] - expected[key][0]).max() > TOLERANCE[dtype] * spread for key in expected]
    assert np.mean(far) <= 0.05


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("most", [2, 5, 64])
def test_branches_at_once_are_close_to_one_by_one(volume, dtype, most):
    model = networks.small_model(dtype, seed=1)
    designs = [design for design in ALL_DESIGNS if design.prompt != "box_per_component"]
    assert_close(
        predicted(model, volume, designs, branches_at_once=most), predicted(model, volume, designs), dtype
    )


@pytest.mark.parametrize(
    "window",
    [MemoryWindow(2), MemoryWindow(stride=2), MemoryWindow(3, pointers=2), MemoryWindow(remembered="truth")],
)
def test_branches_at_once_with_every_window(volume, window):
    model, designs = networks.small_model("float32", seed=1), ALL_DESIGNS[:12]
    alone = predicted(model, volume, designs, window=window)
    assert_close(predicted(model, volume, designs, window=window, branches_at_once=8), alone, "float32")


def test_branches_at_once_take_fewer_calls(volume):
    model = networks.small_model("float32", seed=1)
    calls = {}
    for most in (1, 64):
        with counted(model.network) as counts:
            predicted(model, volume, ALL_DESIGNS, branches_at_once=most)
        calls[most] = dict(counts)
    assert calls[64]["attended"] < calls[1]["attended"] / 3
    assert calls[64]["encoded"] == calls[1]["encoded"]


def test_one_branch_of_a_kind_is_exact(volume):
    model = networks.small_model("float32", seed=1)
    alone = predicted(model, volume, [POINT])
    together = predicted(model, volume, [POINT], branches_at_once=64)  # of two objects, each of another kind
    for key, (logits, score, _) in alone.items():
        np.testing.assert_array_equal(together[key][0], logits)
        assert together[key][1] == score
    assert PropagationOptions().branches_at_once == 1


@pytest.fixture(params=["eager", "inductor"])
def backend(request, monkeypatch):
    """Compile by a backend that only traces, which is quick, and by the one that users get."""
    if request.param == "inductor" and not (shutil.which("c++") or shutil.which("g++")):
        pytest.skip("PyTorch's compiler needs a C++ compiler on a CPU")
    torch.compiler.reset()
    compiling._compiled.cache_clear()
    monkeypatch.setattr(compiling, "BACKEND", request.param)
    yield request.param
    compiling._compiled.cache_clear()


def test_compiled_parts_are_close_and_leave_no_trace(volume, backend):
    model, designs = networks.small_model("float32", seed=1), [POINT]
    before = {name: set(vars(module)) for name, module in model.network.named_modules()}
    eager = predicted(model, volume, designs)
    compiled = predicted(model, volume, designs, kernels="compiled")
    assert_close(compiled, eager, "float32")
    for key, (logits, _, prompted) in eager.items():
        if prompted:  # those are the package's own
            np.testing.assert_array_equal(compiled[key][0], logits)
    assert {name: set(vars(module)) for name, module in model.network.named_modules()} == before
    again = predicted(model, volume, designs)
    assert all(np.array_equal(again[key][0], eager[key][0]) for key in eager)


def test_compiled_parts_stay_compiled_in_batches_of_many_sizes(volume, monkeypatch):
    calls = []

    def counting(graph, _inputs):
        def run(*inputs):
            calls.append(graph)
            return graph(*inputs)

        return run

    torch.compiler.reset()
    compiling._compiled.cache_clear()
    monkeypatch.setattr(compiling, "BACKEND", counting)
    model, designs = networks.small_model("float32", seed=1), ALL_DESIGNS[:24]
    eager, numbers = predicted(model, volume, designs), []
    for _ in range(2):
        with counted(model.network) as counts:
            compiled = predicted(model, volume, designs, kernels="compiled", branches_at_once=16)
        assert_close(compiled, eager, "float32")
        numbers.append(len(calls))
        assert counts["attended"] > 0
    assert numbers[1] == 2 * numbers[0] > 0  # whatever the process did before, the same is compiled
    compiling._compiled.cache_clear()


@pytest.mark.parametrize("mask_scope", ["prompted", "all_with_boxes"])
def test_branches_at_once_with_every_mask_scope(volume, mask_scope):
    model, given = networks.small_model("float32", seed=1), {"mask_scope": mask_scope}
    alone = predicted(model, volume, ALL_DESIGNS[:24], **given)
    assert_close(predicted(model, volume, ALL_DESIGNS[:24], **given, branches_at_once=16), alone, "float32")


def test_modes_that_cannot_be():
    with pytest.raises(StudyError, match="exclude each other"):
        PropagationOptions(kernels="compiled", attention="blocked")
    with pytest.raises(StudyError, match="branches_at_once: is 0"):
        PropagationOptions(branches_at_once=0)
    with pytest.raises(StudyError, match="1 to 64"):
        PropagationOptions(branches_at_once=65)
    with pytest.raises(StudyError, match="eager, compiled"):
        PropagationOptions(kernels="fast")


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 999), count=st.integers(1, 5), broken=st.booleans(), empty=st.booleans())
def test_counts_are_the_same_on_a_device_and_on_the_host(seed, count, broken, empty):
    draw = np.random.default_rng(seed)
    truth = {name: draw.random((7, 9)) > (2.0 if empty else 0.6) for name in "ab"}
    logits = draw.normal(-0.5, 1, (count, 7, 9)).astype(np.float32)
    if empty:
        logits[0] = -1
    if broken:
        logits[-1, 2, 3] = draw.choice([np.nan, np.inf, -np.inf])
    names = [str(name) for name in draw.choice(list("ab"), count)]
    host = on_host(torch.from_numpy(logits), truth, names)
    assert on_device(torch.from_numpy(logits), truth, names) == host
    for values, name, row in zip(logits, names, host, strict=True):
        counts = Counts(*row[:3], bool(row[3]))
        np.testing.assert_equal(counts.iou, iou(truth[name], values > 0))
        assert counts.predicted == (values > 0).sum() and counts.is_finite == np.isfinite(values).all()


def test_scores_are_those_of_the_masks(volume):
    slices, objects = volume
    model, prompt_of = networks.small_model("bfloat16", seed=1), networks.drawn_prompt(objects)
    asked = model, slices, objects, ALL_DESIGNS[:16], prompt_of, PropagationOptions(until="volume_end")
    masks, scored = list(propagation.sweep(*asked)), list(propagation.sweep_counts(*asked, masks=True))
    for one, other in zip(masks, scored, strict=True):
        assert (one.object_name, one.designs, one.slice_index) == (
            *(other.object_name, other.designs, other.slice_index),
        )
        np.testing.assert_array_equal(one.mask, other.mask)
        np.testing.assert_equal((one.score, one.prompted), (other.score, other.prompted))
        np.testing.assert_equal(other.counts.iou, iou(objects[one.object_name][one.slice_index], one.mask))
    assert all(one.mask is None for one in propagation.sweep_counts(*asked))
