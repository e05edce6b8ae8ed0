"""The study's own loops, written from the description of its protocol: the peer in the benchmark.

3D: for every design and object a new inference state, every file read and every slice encoded again, and
every slice of the volume tracked. 2D: for every object the slice is read and encoded again, and several
boxes are filled up to three by repeating the last. The predictors are those of the sam2 and
segment_anything packages. Two things are the workbook's, and cost nothing: how the first candidate is kept,
which the study has not released, and that stored memories can be read in float32, where the package fails.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from sam2.sam2_image_predictor import SAM2ImagePredictor
from segment_anything import SamPredictor

from benchmarks.inputs import Scan
from medsam_nb.models.checkpoints import Model
from medsam_nb.models.memory import looking_back
from medsam_nb.models.predictor import CandidateChoice, add_prompt
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.options import MemoryWindow
from medsam_nb.protocol.prompts import MAX_COMPONENTS, Prompt
from medsam_nb.protocol.tracks import plan


def track_all(
    model: Model, volume: Scan, designs: Sequence[Design]
) -> dict[tuple[str, Design, int], np.ndarray]:
    """Return the logits of every non-empty slice by (object, design, slice), float32 (y, x)."""
    network, found = model.network, {}
    for track in plan(volume.objects, designs, "corrected", "volume_end"):
        choice = CandidateChoice()
        choice.first = track.design.mask_choice == "first_mask"
        filled = set(np.flatnonzero(volume.objects[track.object_name].any((1, 2))))
        hook = network.sam_mask_decoder.register_forward_hook(choice)
        with torch.inference_mode(), model.precision(), looking_back(network, MemoryWindow()):
            state = network.init_state(str(volume.folder))
            for one_pass in track.passes:
                network.reset_state(state)
                for index in track.prompted:
                    prompt = volume.prompt_of(track.object_name, index, track.design.prompt)
                    add_prompt(network, state, index, prompt)
                frames = network.propagate_in_video(state, one_pass.first, reverse=one_pass.reverse)
                for index, _, logits in frames:
                    if index in filled:
                        found[track.object_name, track.design, index] = logits[0, 0].float().cpu().numpy()
        hook.remove()
    return found


def image_predictor(model: Model) -> SAM2ImagePredictor | SamPredictor:
    """Return the package's predictor for single images."""
    if model.family == "sam":
        return SamPredictor(model.network)
    predictor = SAM2ImagePredictor(model.network)
    side = model.image_size  # the package takes it to be 1024
    predictor._bb_feat_sizes = [(side // stride, side // stride) for stride in (4, 8, 16)]
    return predictor


def decode_all(
    model: Model, volume: Scan, prompts: Mapping[tuple, tuple[int, Prompt]]
) -> dict[tuple, np.ndarray]:
    """Return the candidate masks by key; a key is (object, slice, mode, number)."""
    found, shown = {}, None
    predictor = image_predictor(model)
    with torch.inference_mode(), model.precision():
        for key, (index, prompt) in prompts.items():
            name, _, mode, number = key
            if shown != (name, index):
                predictor.set_image(np.array(Image.open(volume.folder / f"{index}.jpg").convert("RGB")))
                shown = name, index
            if prompt.box is None:
                points = np.array(prompt.points)
                found[key] = predictor.predict(points, np.ones(len(points)))[0] > 0
                continue
            is_last = (name, index, mode, number + 1) not in prompts
            repeats = MAX_COMPONENTS - number if mode == "box_per_component" and is_last else 1
            for _ in range(repeats):
                found[key] = predictor.predict(box=np.array(prompt.box))[0] > 0
    return found


def decode_carefully(
    model: Model, volume: Scan, prompts: Mapping[tuple, tuple[int, Prompt]]
) -> dict[tuple, np.ndarray]:
    """Do as `decode_all`, as a careful user does: every slice encoded once, prompts decoded as they come."""
    found, predictor = {}, image_predictor(model)
    by_slice: dict[int, list[tuple]] = {}
    for key, (index, _) in prompts.items():
        by_slice.setdefault(index, []).append(key)
    with torch.inference_mode(), model.precision():
        for index, keys in sorted(by_slice.items()):
            predictor.set_image(np.array(Image.open(volume.folder / f"{index}.jpg").convert("RGB")))
            for key in keys:
                prompt = prompts[key][1]
                points = np.array(prompt.points) if prompt.box is None else None
                labels = None if points is None else np.ones(len(points))
                box = None if prompt.box is None else np.array(prompt.box)
                found[key] = predictor.predict(points, labels, box)[0] > 0
    return found
