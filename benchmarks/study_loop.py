"""The study's own loops, written from the description of its protocol: the peer in the benchmark.

3D: for every design and object a new inference state, every slice prepared and encoded again, and every
slice of the volume tracked. 2D: every slice encoded again for every object. The predictors are those
of the sam2 package; only mask choice, slice order and pixels are those of the workbook, so that masks
can be compared bit for bit.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from sam2.sam2_image_predictor import SAM2ImagePredictor

from medsam_nb.designs import Design
from medsam_nb.features import as_rgb, sam2_transforms
from medsam_nb.memory import MemoryWindow, looking_back
from medsam_nb.models import Model
from medsam_nb.prompts import Prompt
from medsam_nb.reference import CandidateChoice, add_prompt, open_state
from medsam_nb.tracking import plan


def track_all(
    model: Model,
    slices: np.ndarray,
    objects: Mapping[str, np.ndarray],
    designs: Sequence[Design],
    prompt_of: Callable[[str, int, str], Prompt],
) -> dict[tuple[str, Design, int], np.ndarray]:
    """Return the logits of every non-empty slice by (object, design, slice), float32 (y, x)."""
    network, found = model.network, {}
    for track in plan(objects, designs, "corrected", "volume_end"):
        choice = CandidateChoice()
        choice.first = track.design.mask_choice == "first_mask"
        filled = set(np.flatnonzero(objects[track.object_name].any((1, 2))))
        hook = network.sam_mask_decoder.register_forward_hook(choice)
        with torch.inference_mode(), model.precision(), looking_back(network, MemoryWindow()):
            images = [sam2_transforms(model.image_size)(as_rgb(grey)) for grey in slices]
            state = open_state(network, slices, images)
            for one_pass in track.passes:
                network.reset_state(state)
                for index in track.prompted:
                    prompt = prompt_of(track.object_name, index, track.design.prompt)
                    add_prompt(network, state, index, prompt)
                frames = network.propagate_in_video(state, one_pass.first, reverse=one_pass.reverse)
                for index, _, logits in frames:
                    if index in filled:
                        found[track.object_name, track.design, index] = logits[0, 0].float().cpu().numpy()
        hook.remove()
    return found


def decode_all(
    model: Model, slices: np.ndarray, prompts: Mapping[tuple, tuple[int, Prompt]]
) -> dict[tuple, np.ndarray]:
    """Return the candidate masks by key; a key is (object, slice, mode, number)."""
    found, encoded = {}, None
    predictor = SAM2ImagePredictor(model.network)
    side = model.image_size
    predictor._bb_feat_sizes = [(side // stride, side // stride) for stride in (4, 8, 16)]
    with torch.inference_mode(), model.precision():
        for key, (index, prompt) in prompts.items():
            if encoded != key[:2]:  # a slice of one object: all modes follow from one encoding
                predictor.set_image(as_rgb(slices[index]))
                encoded = key[:2]
            if prompt.box is not None:
                masks, _, _ = predictor.predict(box=np.array(prompt.box))
            else:
                masks, _, _ = predictor.predict(np.array(prompt.points), np.ones(len(prompt.points)))
            found[key] = masks > 0
    return found
