"""What the benchmark runs on: networks, and volumes as folders of JPEG files, which the study read.

Slices are brought to the side of the network's input before they are written. Then neither the video
loader's resize nor the workbook's does anything, both sides see the same pixels, and masks can be
compared bit for bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sam2.build_sam import build_sam2_video_predictor

from medsam_nb.data.prepared import case_folders, load_case
from medsam_nb.data.simulated import anatomy
from medsam_nb.errors import InputError
from medsam_nb.models import miniature
from medsam_nb.models.checkpoints import EMBEDDED_WEIGHTS, Model, file_sha256, read_weights
from medsam_nb.protocol.prompts import Prompt, prompt_3d
from medsam_nb.provenance import project_root

CPU = torch.device("cpu")
DEMO_OBJECTS = ("brain", "organ", "paired_organ")


@dataclass(frozen=True, eq=False)
class Scan:
    """A volume and its objects.

    Attributes
    ----------
    folder : Path
        Holds 0.jpg, 1.jpg, ...
    slices : ndarray of uint8, shape (z, y, x)
        The pixels of these files.
    objects : dict of str to ndarray of bool, shape (z, y, x)
    """

    folder: Path
    slices: np.ndarray
    objects: dict[str, np.ndarray]

    def prompt_of(self, name: str, index: int, kind: str) -> Prompt:
        return prompt_3d(self.objects[name][index], kind, ("bench", name, index))


@torch.no_grad()
def with_drawn_weights(network: torch.nn.Module, seed: int = 0, presence: float = 2.0) -> torch.nn.Module:
    """Redraw the weights in place so that candidates, scores and presence change from slice to slice.

    As the package draws them, masks are nearly constant and the same candidate always wins: the two mask
    choices would be one, and most ways of being wrong would go unnoticed. `presence` shifts the object score;
    the lower it is, the more slices are predicted to be without the object.
    """
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(network.named_parameters()):
        if parameter.ndim > 1:
            spread = 1.4 / max(1, parameter[0].numel()) ** 0.5
            if "embed" in name or "token" in name or "tpos" in name:
                spread = 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * spread)
        elif "norm" not in name and "bias" in name:
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.1)
        elif "gamma" in name:
            parameter.fill_(0.5)
    decoder = network.sam_mask_decoder
    decoder.iou_prediction_head.layers[-1].weight.mul_(2)
    decoder.pred_obj_score_head.layers[-1].bias.fill_(presence)
    return network


@cache
def miniature_model(
    dtype: str = "float32", image_size: int = miniature.IMAGE_SIZE, family: str = "sam2"
) -> Model:
    """The miniature SAM 2 or SAM with its shipped, trained weights."""
    build = {"sam2": miniature.build_sam2, "sam": miniature.build_sam}[family]
    path = EMBEDDED_WEIGHTS / f"miniature_{family}.pt"
    network = build(image_size)
    network.load_state_dict(read_weights(path))
    return Model(
        f"miniature_{family}", family, network, image_size, file_sha256(path), CPU, getattr(torch, dtype)
    )


def official_model(size: str, image_size: int, dtype: str, device: torch.device = CPU) -> Model:
    """An official architecture with seeded weights, at a smaller input where asked for."""
    side = image_size // 16
    overrides = [f"++model.image_size={image_size}"]
    overrides += [
        f"++model.memory_attention.layer.{part}.feat_sizes=[{side},{side}]"
        for part in ("self_attention", "cross_attention")
    ]
    config = f"configs/sam2.1/sam2.1_hiera_{size}.yaml"
    torch.manual_seed(0)  # for what is no parameter: the frequencies of the prompts' position code
    network = build_sam2_video_predictor(config, device="cpu", hydra_overrides_extra=overrides)
    name = f"hiera_{size}"
    network = with_drawn_weights(network).to(device)
    return Model(name, "sam2", network, image_size, "untrained-seed-0", device, getattr(torch, dtype))


def _resized(image: np.ndarray, side: int, how: Image.Resampling) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(grey).resize((side, side), how)) for grey in image])


def _stored(image: np.ndarray, objects: dict[str, np.ndarray], side: int, folder: Path) -> Scan:
    """Stretch intensities from the 1st to the 99th percentile to 0 to 255, resize, write JPEG files."""
    low, high = np.percentile(image, (1, 99))
    grey = (np.clip((image - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    folder.mkdir(parents=True)
    read = []
    for index, one in enumerate(_resized(grey, side, Image.Resampling.BICUBIC)):
        path = folder / f"{index}.jpg"
        Image.fromarray(one).save(path, quality=95)
        read.append(np.asarray(Image.open(path)))
    masks = {name: _resized(mask, side, Image.Resampling.NEAREST) for name, mask in objects.items()}
    return Scan(folder, np.stack(read), masks)


def simulated(
    depth: int, first: int, last: int, *, objects: int = 1, seed: int = 3
) -> Callable[[int, Path], Scan]:
    """Return what makes a simulated CT volume whose objects are cut to slices `first` to `last`.

    With seed 3 the largest slice of the first object is not its centre slice, with seed 4 it is: designs
    with these two prompted slices are then the same. Of the first twelve seeds, five are so at 16 slices.
    """

    def make(side: int, folder: Path) -> Scan:
        case = anatomy.simulate_case("ct", seed, shape=(depth, 192, 192))
        found = {}
        for name, value in case.objects.items():
            mask = case.labels == value
            mask[:first] = mask[last + 1 :] = False
            if mask.any() and len(found) < objects:
                found[name] = mask
        return _stored(case.image, found, side, folder)

    return make


def of_the_demo(data_set: str) -> Callable[[int, Path], Scan]:
    """Return what makes the first prepared volume of a data set with the objects that the demo tracks."""

    def make(side: int, folder: Path) -> Scan:
        cases = case_folders(project_root() / "data" / "prepared", data_set)
        if not cases:
            raise InputError(data_set, "has no prepared case to measure on.", "Run `make reproduce` first.")
        case = load_case(cases[0])
        masks = {name: case.mask(name) for name in case.objects if name in DEMO_OBJECTS}
        return _stored(case.slices_uint8(), masks, side, folder)

    return make


def mni152(side: int, folder: Path) -> Scan:
    """Every fourth axial slice of the MNI152 template at 2 mm, and the brain on it."""
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    image, mask = load_mni152_template(resolution=2), load_mni152_brain_mask(resolution=2)
    turned = [np.rot90(np.moveaxis(part.get_fdata(), 2, 0), axes=(1, 2))[::4] for part in (image, mask)]
    return _stored(turned[0], {"brain": turned[1] > 0}, side, folder)
