"""The official video predictor with what surrounds it replaced.

What the sweep engine drives. The predictor's own methods do the work; what is replaced here changes no bit of
a prediction (`evaluation.reference`, which shares no code with this module, is what that is tested against):

* Slices come from an array instead of a folder of JPEG files, and their features are shared with 2D.
* A hook on the mask decoder makes the predictor keep the first candidate where a design asks for it.
  Wherever the package takes the candidate of the highest estimated IoU (on a slice prompted with one point,
  and on every tracked slice), "first_mask" takes candidate 0: its mask, and its object pointer, go into the
  memory. "most_confident_mask" is the package as it is.
"""

import io
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import nn

from medsam_nb.models.features import SliceFeatures
from medsam_nb.models.sharing import replaced
from medsam_nb.protocol.prompts import Prompt

OBJECT_ID = 1


def open_state(network: SAM2VideoPredictor, slices: np.ndarray) -> dict:
    """Return an inference state for a volume, to be used within `sharing_features`.

    The package opens a folder of JPEG files and nothing else. So it is shown a folder with one blank
    image, and the volume's size is put in its place.

    Parameters
    ----------
    network : SAM2VideoPredictor
    slices : ndarray, shape (z, y, x) or (z, y, x, 3)
    """
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGB", (8, 8)).save(Path(folder) / "0.jpg")
        with redirect_stderr(io.StringIO()):  # the package's progress bar
            state = network.init_state(folder, offload_video_to_cpu=True)
    state["cached_features"].clear()
    depth, height, width = slices.shape[:3]
    state.update(images=None, num_frames=depth, video_height=height, video_width=width)
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

    with replaced(network, "_get_image_feature", find_first):
        yield


class CandidateChoice:
    """A hook on the mask decoder that makes the predictor keep the first of three candidates.

    It replaces the three estimated IoUs by (1, 0, 0), of which the predictor takes the greatest.
    Where the decoder returns one mask there is nothing to choose.

    Attributes
    ----------
    first : bool
        Whether to keep the first candidate; otherwise the scores pass unchanged.
    scores : list of float
        For each item of the batch that was decoded last, the estimated IoU of the candidate that was kept.
    candidates : list of int
        Their numbers among the decoder's masks.
    """

    def __init__(self) -> None:
        self.first, self.scores, self.candidates = False, [float("nan")], [0]

    def __call__(self, _decoder: nn.Module, _inputs: tuple, outputs: tuple) -> tuple:
        masks, scores, tokens, presence = outputs
        most_confident = scores.argmax(dim=1, keepdim=True)
        kept = torch.zeros_like(most_confident) if self.first else most_confident
        # one copy from the device: a GPU waits for each
        both = torch.cat([kept.float(), scores.gather(1, kept).float()], dim=1).tolist()
        self.candidates, self.scores = [int(candidate) for candidate, _ in both], [score for _, score in both]
        if self.first and scores.shape[1] == 3:
            scores = torch.zeros_like(scores)
            scores[:, 0] = 1
        return masks, scores, tokens, presence


@contextmanager
def candidates_of(network: SAM2VideoPredictor, mask_scope: str) -> Iterator[None]:
    """Let a slice prompted with two points, or a box, have three candidates, if the mask scope says so."""
    most = 2 if mask_scope == "all_with_boxes" else network.multimask_max_pt_num
    with replaced(network, "multimask_max_pt_num", most):
        yield


def add_prompt(network: SAM2VideoPredictor, state: dict, index: int, prompt: Prompt) -> None:
    """Give a prompt on one slice, as points, a box, both, or a mask."""
    if prompt.mask is not None:
        network.add_new_mask(state, index, OBJECT_ID, prompt.mask)
        return
    points = np.array(prompt.points, np.float32) if prompt.points else None
    labels = np.array(prompt.point_labels, np.int32) if prompt.points else None
    network.add_new_points_or_box(state, index, OBJECT_ID, points=points, labels=labels, box=prompt.box)


def resumed_state(
    network: SAM2VideoPredictor,
    state: dict,
    prompted: dict[int, dict],
    tracked: dict[int, dict],
    visited: Iterable[int],
    reverse: bool,
) -> None:
    """Bring a state to where it was after a pass: what it remembers, and which slices it visited.

    Parameters
    ----------
    network : SAM2VideoPredictor
    state : dict
        Of `open_state`.
    prompted, tracked : dict of int to dict
        What is remembered of slices, in the package's form.
    visited : iterable of int
        Slices of the pass.
    reverse : bool
        Its direction.
    """
    network.reset_state(state)
    place = network._obj_id_to_idx(state, OBJECT_ID)
    remembered = {"cond_frame_outputs": dict(prompted), "non_cond_frame_outputs": dict(tracked)}
    state["output_dict_per_obj"][place] = remembered
    state["frames_tracked_per_obj"][place] = {index: {"reverse": reverse} for index in visited}
