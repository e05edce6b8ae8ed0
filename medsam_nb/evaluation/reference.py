"""The official video predictor, fed from memory: what every faster path is compared with.

It is `SAM2VideoPredictor` of the sam2 package, unmodified: prompts through its public methods,
propagation by its own loop, one design after the other. Only what surrounds it differs from the study:

* Slices come from an array instead of a folder of JPEG files, through the transform of the image
  predictor (see `features`), so that 2D and 3D see the same pixels.
* A slice's features are kept for the next design, and a pass stops where no wanted slice follows.
  Neither changes a bit of any prediction.
* A forward hook on the mask decoder makes the predictor keep the first candidate where a design asks
  for it. Wherever the package takes the candidate of the highest estimated IoU (on a slice prompted
  with one point, and on every tracked slice), "first_mask" takes candidate 0: its mask, and its object
  pointer, go into the memory. "most_confident_mask" is the package as it is.
"""

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import nn

from medsam_nb.protocol.designs import MASK_SCOPES, Design
from medsam_nb.models.features import SliceFeatures
from medsam_nb.models.memory import MemoryWindow, looking_back
from medsam_nb.models.checkpoints import Model
from medsam_nb.protocol.prompts import Prompt
from medsam_nb.protocol.tracks import Pass, SliceMask, Track, plan

OBJECT_ID = 1


def open_state(network: SAM2VideoPredictor, slices: np.ndarray, images: Sequence | None = None) -> dict:
    """Return an inference state for a volume.

    The package opens a folder of JPEG files and nothing else. So it is shown a folder with one blank
    image, and the volume is put in its place.

    Parameters
    ----------
    network : SAM2VideoPredictor
    slices : ndarray, shape (z, y, x)
    images : sequence of Tensor, shape (3, image_size, image_size), optional
        Preprocessed slices, if the network is to encode them itself; not needed within `sharing_features`.
    """
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGB", (8, 8)).save(Path(folder) / "0.jpg")
        with redirect_stderr(io.StringIO()):  # the package's progress bar
            state = network.init_state(folder, offload_video_to_cpu=True)
    state["cached_features"].clear()
    depth, height, width = slices.shape
    state.update(images=images, num_frames=depth, video_height=height, video_width=width)
    return state


@contextmanager
def sharing_features(network: SAM2VideoPredictor, features: SliceFeatures) -> Iterator[None]:
    """Let the predictor find a slice's features instead of encoding it.

    The package keeps the features of one slice only; here they are put in that place before it looks.
    """
    look_up = network._get_image_feature
    no_image = torch.empty(1, 3, 0, 0)

    def find_first(state, frame_idx, batch_size):
        state["cached_features"] = {frame_idx: (no_image, features.backbone(frame_idx))}
        return look_up(state, frame_idx, batch_size)

    network._get_image_feature = find_first
    try:
        yield
    finally:
        del network._get_image_feature


class CandidateChoice:
    """A hook on the mask decoder that makes the predictor keep the first of three candidates.

    It replaces the three estimated IoUs by (1, 0, 0), of which the predictor takes the greatest.
    Where the decoder returns one mask there is nothing to choose.

    Attributes
    ----------
    first : bool
        Whether to keep the first candidate; otherwise the scores pass unchanged.
    score : float
        Estimated IoU of the candidate that was kept last.
    """

    def __init__(self) -> None:
        self.first, self.score = False, float("nan")

    def __call__(self, _decoder: nn.Module, _inputs: tuple, outputs: tuple) -> tuple:
        masks, scores, tokens, presence = outputs
        kept = 0 if self.first else int(scores[0].argmax())
        self.score = float(scores[0, kept])
        if self.first and scores.shape[1] == 3:
            scores = torch.zeros_like(scores)
            scores[:, 0] = 1
        return masks, scores, tokens, presence


@contextmanager
def candidates_of(network: SAM2VideoPredictor, mask_scope: str) -> Iterator[None]:
    """Let a slice prompted with two points, or a box, have three candidates, if the mask scope says so."""
    known = network.multimask_max_pt_num
    if mask_scope == "all_with_boxes":
        network.multimask_max_pt_num = 2
    try:
        yield
    finally:
        network.multimask_max_pt_num = known


def add_prompt(network: SAM2VideoPredictor, state: dict, index: int, prompt: Prompt) -> None:
    """Give a prompt on one slice, as points, a box, or a mask."""
    if prompt.mask is not None:
        network.add_new_mask(state, index, OBJECT_ID, prompt.mask)
        return
    points = np.array(prompt.points, np.float32) if prompt.points else None
    labels = np.ones(len(prompt.points), np.int32) if prompt.points else None
    network.add_new_points_or_box(state, index, OBJECT_ID, points=points, labels=labels, box=prompt.box)


def sweep(
    model: Model,
    slices: np.ndarray,
    objects: Mapping[str, np.ndarray],
    designs: Sequence[Design],
    prompt_of: Callable[[str, int, str], Prompt],
    *,
    mask_scope: str = "all",
    protocol: str = "corrected",
    until: str = "last_object_slice",
    window: MemoryWindow | None = None,
    features: SliceFeatures | None = None,
) -> Iterator[SliceMask]:
    """Predict every design of every object of a volume.

    Parameters
    ----------
    model : Model
        Of family "sam2".
    slices : ndarray of uint8, shape (z, y, x)
    objects : mapping of str to ndarray of bool, shape (z, y, x)
        Tracked one by one; an object without a voxel yields nothing.
    designs : sequence of Design
    prompt_of : callable (object_name, slice_index, kind) -> Prompt
        Asked once per object, slice and kind.
    mask_scope : {"all", "prompted", "all_with_boxes"}
        Whether a design's mask choice holds on all slices, or on prompted ones only (the others then
        keep the most confident candidate). The package gives one mask, and no choice, on a slice that is
        prompted with more than one point or with a box, which is two points to it; with
        "all_with_boxes" it gives three for two points too (`multimask_max_pt_num` = 2), as the image
        predictor does.
    protocol : {"corrected", "released"}
        How three slices are chosen; see `designs.prompted_slices`.
    until : {"last_object_slice", "volume_end"}
        See `tracking.plan`.
    window : MemoryWindow, optional
        The released model's, unless given.
    features : SliceFeatures, optional
        Of these slices and this model, to share them with other runs.

    Yields
    ------
    SliceMask
        Each wanted slice of each design of each object once.
    """
    if mask_scope not in MASK_SCOPES:
        raise ValueError(f"unknown mask scope {mask_scope!r}; known: {', '.join(MASK_SCOPES)}")
    network = model.network
    features = features or SliceFeatures(model, slices)
    window = window or MemoryWindow()
    prompt_of = cache(prompt_of)

    @contextmanager
    def running(choice: CandidateChoice) -> Iterator[None]:
        hook = network.sam_mask_decoder.register_forward_hook(choice)
        try:
            with (
                torch.inference_mode(),
                model.precision(),
                sharing_features(network, features),
                looking_back(network, window),
                candidates_of(network, mask_scope),
            ):
                yield
        finally:
            hook.remove()

    with running(CandidateChoice()):
        state = open_state(network, slices)
    for track in plan(objects, designs, protocol, until):
        for one_pass in track.passes:
            yield from _one_pass(network, state, running, track, one_pass, prompt_of, mask_scope)


def _one_pass(network, state, running, track: Track, one_pass: Pass, prompt_of, mask_scope):
    """Prompt a fresh state and follow one pass; the network is left as it was at every yield."""
    choice = CandidateChoice()
    scores = {}
    wants_first = track.design.mask_choice == "first_mask"
    with running(choice):
        network.reset_state(state)
        choice.first = wants_first
        for index in track.prompted:
            prompt = prompt_of(track.object_name, index, track.design.prompt)
            add_prompt(network, state, index, prompt)
            scores[index] = choice.score if prompt.mask is None else float("nan")
        choice.first = wants_first and mask_scope != "prompted"
        frames = network.propagate_in_video(
            state, one_pass.first, abs(one_pass.last - one_pass.first), one_pass.reverse
        )
    for visited, _ in enumerate(one_pass.slices):
        quiet = redirect_stderr(io.StringIO()) if visited == 0 else nullcontext()
        with running(choice), quiet:  # the package's progress bar is made with the first slice
            index, _, logits = next(frames)
        if index in track.wanted:
            prompted = index in scores
            yield SliceMask(
                track.object_name,
                (track.design,),
                index,
                logits[0, 0].float().cpu().numpy(),
                scores[index] if prompted else choice.score,
                prompted,
            )
