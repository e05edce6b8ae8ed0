"""How a model sees a slice: its preprocessing and its image encoder, as the packages have them.

One resize feeds everything: `SAM2Transforms`, the transform of SAM 2's image predictor (torchvision's
antialiased bilinear filter on floats). The package's video loader uses PIL's bicubic filter on uint8 instead,
so its two predictors see different pixels; frames of "video" are resized as that loader does.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from sam2.utils.transforms import SAM2Transforms
from segment_anything.utils.transforms import ResizeLongestSide
from torch import nn
from torchvision.transforms import Normalize, Resize, ToTensor

from medsam_nb.errors import require_known
from medsam_nb.models.checkpoints import Model
from medsam_nb.models.sharing import replaced
from medsam_nb.protocol.options import FRAMES


def as_rgb(picture: np.ndarray) -> np.ndarray:
    """Return a slice, uint8 (y, x) or (y, x, 3), as the (y, x, 3) image that the models expect."""
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=-1)


@contextmanager
def quiet_transforms() -> Iterator[None]:
    """Silence the warning that sam2's use of torch.jit.script gives on PyTorch that deprecates it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=DeprecationWarning)
        yield


@cache
def sam2_transforms(image_size: int) -> SAM2Transforms:
    """Return the package's own transform; making one takes longer than using it."""
    with quiet_transforms():
        return SAM2Transforms(image_size, mask_threshold=0.0)


@cache
def _steps(image_size: int) -> tuple[ToTensor, Resize, Normalize]:
    """Return the package's transform in its steps."""
    whole = sam2_transforms(image_size)
    return whole.to_tensor, Resize((image_size, image_size)), Normalize(whole.mean, whole.std)


def as_image(picture: np.ndarray, image_size: int) -> torch.Tensor:
    """Return a slice as SAM 2's image predictor prepares an image, shape (3, image_size, image_size).

    A grey slice is resized once, not as three equal channels: the same bits in a third of the time.
    """
    if picture.ndim == 3:
        return sam2_transforms(image_size)(picture)
    to_tensor, resize, normalise = _steps(image_size)
    return normalise(resize(to_tensor(picture)).expand(3, -1, -1))


@contextmanager
def without_positions(neck: nn.Module) -> Iterator[None]:
    """Leave out the position encodings, which are the same for every slice; see `SliceFeatures.backbone`."""
    with replaced(neck.position_encoding, "forward", lambda level: level[:, :1]):
        yield


def as_video_frame(picture: np.ndarray, image_size: int) -> torch.Tensor:
    """Return a slice as SAM 2's loader of video folders prepares a frame, shape (3, image_size, image_size).

    PIL's resize of 8-bit pictures (bicubic), then the mean and spread of ImageNet; but for JPEG, through
    which the loader would read it.
    """
    resized = Image.fromarray(picture).convert("RGB").resize((image_size, image_size))
    frame = torch.from_numpy(np.asarray(resized) / 255.0).permute(2, 0, 1).float()
    transforms = sam2_transforms(image_size)
    mean, spread = (torch.tensor(value)[:, None, None] for value in (transforms.mean, transforms.std))
    return (frame - mean) / spread


@dataclass(frozen=True)
class Encoder:
    """How a model sees a slice.

    Attributes
    ----------
    preprocessing : str
        Its name.
    prepare : callable
        Takes a slice, uint8 (y, x) or (y, x, 3), and returns the image that the network is shown, on the CPU.
    encode : callable
        Takes that image and returns the slice's features, finest level first: what the official image
        predictor computes in `set_image`, before anything that depends on a prompt.
    """

    preprocessing: str
    prepare: Callable[[np.ndarray], torch.Tensor]
    encode: Callable[[torch.Tensor], list[torch.Tensor]]


def _on_device(image: torch.Tensor, model: Model) -> torch.Tensor:
    """Send an image to the network; without waiting where PyTorch keeps it until it has arrived (CUDA)."""
    return image.to(model.device, non_blocking=model.device.type == "cuda")


def encoder_of(model: Model, frames: str = "image") -> Encoder:
    """Return how a model sees a slice.

    Parameters
    ----------
    model : Model
    frames : {"image", "video"}
        How slices are resized; see `options.PropagationOptions`. SAM has one way only, "image".
    """
    network, size = model.network, model.image_size
    require_known("frames", frames, FRAMES if model.family == "sam2" else FRAMES[:1], what="way to resize")
    if model.family == "sam2":
        as_input = {"image": as_image, "video": as_video_frame}[frames]
        _steps(size)  # made here, as compiling the package's transform is not safe in two threads at once

        def encode(image: torch.Tensor) -> list[torch.Tensor]:
            image = _on_device(image, model)
            with torch.inference_mode(), model.precision(), without_positions(network.image_encoder.neck):
                return network.forward_image(image)["backbone_fpn"]

        name = f"{'SAM2Transforms' if frames == 'image' else 'video frames'}, square of {size}"
        return Encoder(name, lambda picture: as_input(picture, size)[None], encode)
    resize = ResizeLongestSide(size)

    def encode(image: torch.Tensor) -> list[torch.Tensor]:
        image = _on_device(image, model)
        with torch.inference_mode(), model.precision():
            return [network.image_encoder(network.preprocess(image.permute(2, 0, 1).contiguous()[None]))]

    def prepare(picture: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(resize.apply_image(as_rgb(picture)))

    return Encoder(f"ResizeLongestSide, {size}", prepare, encode)


def encoder_sha256(model: Model) -> str:
    """Return the hash of the weights that features depend on, as they are now."""
    network = model.network
    parts = [network.image_encoder]
    if model.family == "sam2":  # `forward_image` also projects the two finer levels for the decoder
        parts += [network.sam_mask_decoder.conv_s0, network.sam_mask_decoder.conv_s1]
    digest = hashlib.sha256()
    for part in parts:
        for name, value in sorted(part.state_dict().items()):
            value = value.detach().cpu().contiguous()
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def feature_shapes(model: Model) -> list[tuple[int, ...]]:
    """Return the shapes of a slice's features, finest level first, each (1, channels, y, x)."""
    network, size = model.network, model.image_size
    if model.family == "sam":
        return [(1, network.prompt_encoder.embed_dim, *network.prompt_encoder.image_embedding_size)]
    decoder = network.sam_mask_decoder
    channels = (decoder.conv_s0.out_channels, decoder.conv_s1.out_channels, network.hidden_dim)
    return [(1, count, size // step, size // step) for count, step in zip(channels, (4, 8, 16), strict=True)]
