"""Image features of a volume's slices: each slice is encoded once, for 2D and 3D, all objects and designs.

One resize feeds everything: `SAM2Transforms`, the transform of SAM 2's image predictor (torchvision's
antialiased bilinear filter on floats). The package's video loader uses PIL's bicubic filter on uint8 instead,
so its two predictors see different pixels; frames of "video" are resized as that loader does.

Features stay in memory within a budget. Beyond it they come back from a folder, if one is given, or are
encoded again. A file is used only if its key says that it was made by these weights from these pixels
in the same way, and its content has not changed since.
"""

import hashlib
import json
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sam2.utils.transforms import SAM2Transforms
from segment_anything.utils.transforms import ResizeLongestSide
from torch import nn
from torchvision.transforms import Normalize, Resize, ToTensor

from medsam_nb.errors import require_known
from medsam_nb.models.checkpoints import Model
from medsam_nb.models.feature_folder import FeatureFolder
from medsam_nb.models.sharing import replaced
from medsam_nb.protocol.options import FRAMES
from medsam_nb.provenance import ENCODED_SLICES, code_sha256, package_versions

ENCODING_PACKAGES = ("numpy", "pillow", "sam2", "segment-anything", "torch", "torchvision")
BUDGET_BYTES = 256 << 20
BUDGET_SLICES = 64  # at least; a slice of SAM 2 at 1024 pixels takes 16.8 MB in float32, 10.5 in bfloat16

Encode = Callable[[np.ndarray], list[torch.Tensor]]


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


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: the order of sums on a CPU, and so the last bits, depend on their number.

    It is also faster where other processes use the cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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


def encoder_of(model: Model, frames: str = "image") -> tuple[str, Encode]:
    """Return how a model sees a slice: the name of its preprocessing, and the function that encodes.

    The function takes a slice, uint8 (y, x) or (y, x, 3), and returns its features, finest level first: what
    the official image predictor computes in `set_image`, before anything that depends on a prompt.

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

        def encode(picture: np.ndarray) -> list[torch.Tensor]:
            image = as_input(picture, size)[None].to(model.device)
            with torch.inference_mode(), model.precision(), without_positions(network.image_encoder.neck):
                return network.forward_image(image)["backbone_fpn"]

        return f"{'SAM2Transforms' if frames == 'image' else 'video frames'}, square of {size}", encode
    resize = ResizeLongestSide(size)

    def encode(picture: np.ndarray) -> list[torch.Tensor]:
        image = torch.as_tensor(resize.apply_image(as_rgb(picture)), device=model.device)
        with torch.inference_mode(), model.precision():
            return [network.image_encoder(network.preprocess(image.permute(2, 0, 1).contiguous()[None]))]

    return f"ResizeLongestSide, {size}", encode


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


def device_name(device: torch.device) -> str:
    """Return what decides how a device rounds: its model, or the instructions that a CPU has."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


def feature_shapes(model: Model) -> list[tuple[int, ...]]:
    """Return the shapes of a slice's features, finest level first, each (1, channels, y, x)."""
    network, size = model.network, model.image_size
    if model.family == "sam":
        return [(1, network.prompt_encoder.embed_dim, *network.prompt_encoder.image_embedding_size)]
    decoder = network.sam_mask_decoder
    channels = (decoder.conv_s0.out_channels, decoder.conv_s1.out_channels, network.hidden_dim)
    return [(1, count, size // step, size // step) for count, step in zip(channels, (4, 8, 16), strict=True)]


class SliceFeatures:
    """The features of the slices of one volume, encoded when first asked for.

    Parameters
    ----------
    model : Model
    slices : ndarray of uint8, shape (z, y, x) or, in colour, (z, y, x, 3)
    frames : {"image", "video"}
        How slices are resized; see `encoder_of`.
    budget_bytes : int, optional
        Of memory; those used longest ago go first. Without one: 256 MiB, or 64 slices where that is more.
    folder : Path, optional
        Where features are also stored, for slices beyond the budget and for later runs.
    folder_bytes : int, optional
        What the folder may hold; see `FeatureFolder`.

    Attributes
    ----------
    encoded : int
        How often a slice was encoded.
    """

    def __init__(
        self,
        model: Model,
        slices: np.ndarray,
        *,
        frames: str = "image",
        budget_bytes: int | None = None,
        folder: Path | None = None,
        folder_bytes: int | None = None,
    ) -> None:
        if slices.dtype != np.uint8 or not (slices.ndim == 3 or (slices.ndim == 4 and slices.shape[3] == 3)):
            raise ValueError(
                f"slices are uint8 (z, y, x) or (z, y, x, 3), not {slices.dtype} of shape {slices.shape}"
            )
        self.model, self.slices, self.frames, self.encoded = model, slices, frames, 0
        preprocessing, self._encode = encoder_of(model, frames)
        self._budget, self._used = budget_bytes, 0
        self._kept: OrderedDict[int, list[torch.Tensor]] = OrderedDict()
        self._position: torch.Tensor | None = None
        self._folder = None
        if folder is not None:
            origin = {
                "weights": encoder_sha256(model),
                "preprocessing": preprocessing,
                "dtype": str(model.dtype),
                "device": device_name(model.device),
                "threads": torch.get_num_threads(),  # the order of sums on a CPU depends on it
                "code": code_sha256(*ENCODED_SLICES),
                "packages": package_versions(ENCODING_PACKAGES),
            }
            self._folder = FeatureFolder(
                folder,
                json.dumps(origin, sort_keys=True),
                feature_shapes(model),
                {torch.float32, model.dtype},
                folder_bytes,
            )

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        """Return the features of a slice, finest level first, each of shape (1, channels, y, x)."""
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        levels = self._stored_or_encoded(self.slices[index])
        size = sum(level.nbytes for level in levels)
        if self._budget is None:
            self._budget = max(BUDGET_BYTES, BUDGET_SLICES * size)
        while self._kept and self._used + size > self._budget:
            _, dropped = self._kept.popitem(last=False)
            self._used -= sum(level.nbytes for level in dropped)
        self._kept[index] = levels
        self._used += size
        return levels

    def of_other(self, slices: np.ndarray) -> "SliceFeatures":
        """Return the features of other slices, of the same model and from the same folder."""
        other = SliceFeatures(self.model, slices, frames=self.frames)
        other._folder = self._folder
        return other

    def _stored_or_encoded(self, picture: np.ndarray) -> list[torch.Tensor]:
        if self._folder is None:
            self.encoded += 1
            return self._encode(picture)
        key = self._folder.key(picture)
        levels = self._folder.read(key)
        if levels is not None:
            return [level.to(self.model.device) for level in levels]
        self.encoded += 1
        levels = self._encode(picture)
        self._folder.write(key, levels)
        return levels

    def backbone(self, index: int) -> dict[str, list[torch.Tensor]]:
        """Return a slice's features in the form that SAM 2's `forward_image` gives them.

        Of the position encodings only the coarsest level's is ever read; those of the finer levels
        serve for their size, so a view of the features stands in for them.
        """
        levels = self[index]
        if self._position is None:
            encode = self.model.network.image_encoder.neck.position_encoding
            self._position = encode(levels[-1]).to(levels[-1].dtype)
        return {
            "backbone_fpn": list(levels),
            "vision_pos_enc": [level[:, :1] for level in levels[:-1]] + [self._position],
        }
