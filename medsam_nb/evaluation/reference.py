"""The oracle: the official video predictor, used as a careful user of the package uses it.

`SAM2VideoPredictor` of the sam2 package, unmodified: prompts through its public methods, propagation by its
own loop, one design after the other, every slice encoded by the network itself. It is what the engine is
tested against, so it shares no code with it: only what is to be predicted (`protocol`) and the network.

What a plain use of the package does not offer is done here in the simplest way:

* Slices come from an array, through the transform of the image predictor, instead of from JPEG files.
* "first_mask" shows the predictor scores that fall with the candidate's number, so that the first wins.
* In float32 stored memories, which are bfloat16, are read as float32, where the package fails
  (github.com/facebookresearch/sam2/issues/308); the values are the same.
"""

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sam2.utils.transforms import SAM2Transforms

from medsam_nb.errors import StudyError
from medsam_nb.models.checkpoints import Model
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.options import MemoryWindow, PropagationOptions
from medsam_nb.protocol.prompts import Prompt
from medsam_nb.protocol.tracks import Pass, SliceMask, Track, plan


def video_state(model: Model, slices: np.ndarray) -> dict:
    """Return an inference state in which every slice is already encoded, as a careful user would have it.

    Parameters
    ----------
    model : Model
    slices : ndarray of uint8, shape (z, y, x) or, in colour, (z, y, x, 3)
    """
    network = model.network
    transform = SAM2Transforms(model.image_size, mask_threshold=0.0)
    with tempfile.TemporaryDirectory() as folder:
        for index, shown in enumerate(slices):
            Image.fromarray(shown).convert("RGB").save(Path(folder) / f"{index}.jpg")
        with redirect_stderr(io.StringIO()):  # the package's progress bar
            state = network.init_state(folder)
    # Not stacked: the layout in memory, on which the last bits depend, stays that of the image predictor.
    colours = slices if slices.ndim == 4 else np.stack([slices] * 3, axis=-1)
    state["images"] = [transform(np.ascontiguousarray(one)) for one in colours]
    state["cached_features"] = {}
    for index, image in enumerate(state["images"]):
        shown = image[None].to(model.device)
        state["cached_features"][index] = (shown, network.forward_image(shown))
    return state


class Decoded:
    """A hook on the mask decoder: notes the score of what is kept; lets the first win where wanted."""

    def __init__(self) -> None:
        self.first_wins, self.score = False, float("nan")

    def __call__(self, _decoder, _inputs, outputs):
        masks, scores, tokens, presence = outputs
        self.score = scores[0, 0].item() if self.first_wins else scores.max().item()
        if self.first_wins:  # all three are still resized together: alone the first would round differently
            scores = -torch.arange(scores.shape[1], dtype=scores.dtype, device=scores.device)[None]
        return masks, scores, tokens, presence


def read_as_float(_attention, _inputs, named):
    """A hook on memory attention: reads memories, which are stored as bfloat16, as float32."""
    return _inputs, named | {"memory": named["memory"].float()}


@contextmanager
def driven(model: Model, **settings: object) -> Iterator[Decoded]:
    """Watch what the predictor decodes while the block runs; `settings` of the network hold meanwhile."""
    network, decoded = model.network, Decoded()
    with ExitStack() as stack:
        stack.callback(network.sam_mask_decoder.register_forward_hook(decoded).remove)
        if model.dtype == torch.float32:
            reading = network.memory_attention.register_forward_pre_hook(read_as_float, with_kwargs=True)
            stack.callback(reading.remove)
        for name, value in settings.items():
            stack.callback(setattr, network, name, getattr(network, name))
            setattr(network, name, value)
        stack.enter_context(torch.inference_mode())
        stack.enter_context(model.precision())
        yield decoded


def sweep(
    model: Model,
    slices: np.ndarray,
    objects: Mapping[str, np.ndarray],
    designs: Sequence[Design],
    prompt_of: Callable[[str, int, str], Prompt],
    options: PropagationOptions = PropagationOptions(),
    given: Mapping[str, Sequence[int]] | None = None,
) -> Iterator[SliceMask]:
    """Predict every design of every object of a volume, one after the other.

    Parameters
    ----------
    model : Model
        Of family "sam2".
    slices : ndarray of uint8, shape (z, y, x) or, in colour, (z, y, x, 3)
    objects : mapping of str to ndarray of bool, shape (z, y, x)
        Tracked one by one; an object without a voxel yields nothing.
    designs : sequence of Design
    prompt_of : callable (object_name, slice_index, kind) -> Prompt
    options : PropagationOptions
        With the released memory window, whatever it remembers, exact attention and frames of the image
        predictor.
    given : mapping of str to sequence of int, optional
        Prompted slices by object, in place of the designs' frame choices.

    Yields
    ------
    SliceMask
        Each wanted slice of each design of each object once.
    """
    content = options.window.remembered
    known = MemoryWindow(remembered=content), "exact", "image"
    if (options.window, options.attention, options.frames) != known:
        raise StudyError("reference", f"cannot predict with {options}.", "Only the engine can.")
    points = {"multimask_max_pt_num": 2} if options.mask_scope == "all_with_boxes" else {}
    with driven(model, **points) as decoded:
        alone = content == "nothing"
        tracks = plan(objects, designs, options.protocol, options.until, given, each_alone=alone)
        state = video_state(model, slices) if tracks else {}
        second = video_state(model, slices) if tracks and content == "truth" else {}
        found = []
        for track in tracks:
            truth = objects[track.object_name] if content == "truth" else None
            for one_pass in track.passes:
                predicted = _one_pass(
                    model.network, state, decoded, track, one_pass, prompt_of, options.mask_scope
                )
                for index, one in predicted:
                    found += [one] if one else []
                    if truth is not None and index not in track.prompted:
                        _remember(model.network, state, index, second, truth[index])
    yield from found


def _remember(network, state: dict, index: int, second: dict, mask: np.ndarray) -> None:
    """Put in the place of a tracked slice's memory that of the slice prompted with a mask."""
    network.reset_state(second)
    network.add_new_mask(second, index, 1, mask)
    network.propagate_in_video_preflight(second)
    remembered = second["output_dict_per_obj"][0]["cond_frame_outputs"][index]
    state["output_dict_per_obj"][0]["non_cond_frame_outputs"][index] = remembered


def _one_pass(network, state, decoded: Decoded, track: Track, one_pass: Pass, prompt_of, mask_scope: str):
    """Prompt a fresh state, follow one pass with the package's own loop; yield slices, with wanted masks."""
    scores = {}
    network.reset_state(state)
    decoded.first_wins = track.design.mask_choice == "first_mask"
    for index in track.prompted:
        prompt = prompt_of(track.object_name, index, track.design.prompt)
        decoded.score = float("nan")  # a mask as a prompt is returned without decoding anything
        if prompt.mask is not None:
            network.add_new_mask(state, index, 1, prompt.mask)
        elif not prompt.points:
            network.add_new_points_or_box(state, index, 1, box=prompt.box)
        else:
            points, labels = [list(point) for point in prompt.points], list(prompt.point_labels)
            network.add_new_points_or_box(state, index, 1, points=points, labels=labels, box=prompt.box)
        scores[index] = decoded.score if prompt.mask is None else float("nan")
    decoded.first_wins = track.design.mask_choice == "first_mask" and mask_scope != "prompted"
    length = abs(one_pass.last - one_pass.first)
    with redirect_stderr(io.StringIO()):  # the package's progress bar
        for index, _, logits in network.propagate_in_video(
            state, one_pass.first, length, reverse=one_pass.reverse
        ):
            drawn = logits[0, 0].float().cpu().numpy()
            score = scores.get(index, decoded.score)
            one = SliceMask(track.object_name, (track.design,), index, drawn, score, index in scores)
            yield index, one if index in track.wanted else None
