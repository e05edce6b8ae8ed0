"""Image features of a volume's slices: each slice is encoded once, for 2D and 3D, all objects and designs.

Features stay in memory within a budget. Beyond it they come back from a folder, if one is given, or are
encoded again. A file is used only if its key says that it was made by these weights from these pixels
in the same way, and its content has not changed since.
"""

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch

from medsam_nb.models.ahead import Ahead
from medsam_nb.models.checkpoints import Model
from medsam_nb.models.encoding import Encoder, encoder_of, encoder_sha256, feature_shapes
from medsam_nb.models.feature_folder import FeatureFolder
from medsam_nb.provenance import ENCODED_SLICES, code_sha256, package_versions

ENCODING_PACKAGES = ("numpy", "pillow", "sam2", "segment-anything", "torch", "torchvision")
BUDGET_BYTES = 256 << 20
BUDGET_SLICES = 64  # at least; a slice of SAM 2 at 1024 pixels takes 16.8 MB in float32, 10.5 in bfloat16


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


def device_name(device: torch.device) -> str:
    """Return what decides how a device rounds: its model, or the instructions that a CPU has."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


def default_budget(device: torch.device, slice_bytes: int) -> int:
    """Return how many bytes of encoded slices a volume keeps: on a GPU up to a quarter of what is free."""
    least = max(BUDGET_BYTES, BUDGET_SLICES * slice_bytes)
    if device.type != "cuda":
        return least
    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(
        device
    )  # PyTorch's, to be used again
    return max(least, (torch.cuda.mem_get_info(device)[0] + idle) // 4)


def _prepared(encoder: Encoder, slices: np.ndarray, pinned: bool, index: int) -> torch.Tensor:
    """Return a slice as the network is shown it, on the CPU; from pinned memory a GPU reads by itself."""
    image = encoder.prepare(slices[index])
    return image.pin_memory() if pinned else image


class SliceFeatures:
    """The features of the slices of one volume, encoded when first asked for.

    Parameters
    ----------
    model : Model
    slices : ndarray of uint8, shape (z, y, x) or, in colour, (z, y, x, 3)
    frames : {"image", "video"}
        How slices are resized; see `encoding.encoder_of`.
    budget_bytes : int, optional
        Of memory; those used longest ago go first. Without one: 256 MiB, or 64 slices where that is more, or
        a quarter of what a GPU has free.
    folder : Path, optional
        Where features are also stored, for slices beyond the budget and for later runs. Without one those in
        the model's own folder are read, and none is stored.
    folder_bytes : int, optional
        What the folder may hold; see `FeatureFolder`.
    ahead : bool, optional
        Prepare the slices that are expected next while the network is busy; by default unless it is busy on
        a CPU, whose cores have no time for it.

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
        ahead: bool | None = None,
    ) -> None:
        if slices.dtype != np.uint8 or not (slices.ndim == 3 or (slices.ndim == 4 and slices.shape[3] == 3)):
            raise ValueError(
                f"slices are uint8 (z, y, x) or (z, y, x, 3), not {slices.dtype} of shape {slices.shape}"
            )
        self.model, self.slices, self.frames, self.encoded = model, slices, frames, 0
        self._encoder = encoder_of(model, frames)
        self._prepare = partial(_prepared, self._encoder, slices, model.device.type == "cuda")
        ahead = model.device.type != "cpu" if ahead is None else ahead
        self._ahead = Ahead(self._prepare) if ahead else None
        self._budget, self._used = budget_bytes, 0
        self._kept: OrderedDict[int, list[torch.Tensor]] = OrderedDict()
        self._position: torch.Tensor | None = None
        if folder is None and model.encoded_slices is not None:
            folder, folder_bytes = model.encoded_slices, 0
        self._stored = folder, folder_bytes

    @cached_property
    def _folder(self) -> FeatureFolder | None:
        """The folder, for features that are computed as they are where one is first asked for."""
        folder, most_bytes = self._stored
        if folder is None:
            return None
        model = self.model
        origin = {
            "weights": encoder_sha256(model),
            "preprocessing": self._encoder.preprocessing,
            "dtype": str(model.dtype),
            "device": device_name(model.device),
            "threads": torch.get_num_threads(),  # the order of sums on a CPU depends on it
            "code": code_sha256(*ENCODED_SLICES),
            "packages": package_versions(ENCODING_PACKAGES),
        }
        kinds = {torch.float32, model.dtype}
        return FeatureFolder(
            folder, json.dumps(origin, sort_keys=True), feature_shapes(model), kinds, most_bytes
        )

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        """Return the features of a slice, finest level first, each of shape (1, channels, y, x)."""
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        levels = self._stored_or_encoded(index)
        if self._ahead is not None:
            self._ahead.passed(index)
        size = sum(level.nbytes for level in levels)
        if self._budget is None:
            self._budget = default_budget(self.model.device, size)
        while self._kept and self._used + size > self._budget:
            _, dropped = self._kept.popitem(last=False)
            self._used -= sum(level.nbytes for level in dropped)
        self._kept[index] = levels
        self._used += size
        return levels

    def of_other(self, slices: np.ndarray) -> "SliceFeatures":
        """Return the features of other slices, of the same model and from the same folder."""
        other = SliceFeatures(self.model, slices, frames=self.frames, ahead=self._ahead is not None)
        other._folder = self._folder
        return other

    def expect(self, indices: Iterable[int]) -> None:
        """Say which slices will be asked for next, in their order."""
        if self._ahead is not None:
            self._ahead.expect(index for index in indices if index not in self._kept)

    def _encoded(self, index: int) -> list[torch.Tensor]:
        self.encoded += 1
        image = self._prepare(index) if self._ahead is None else self._ahead.take(index)
        return self._encoder.encode(image)

    def _stored_or_encoded(self, index: int) -> list[torch.Tensor]:
        if self._folder is None:
            return self._encoded(index)
        key = self._folder.key(self.slices[index])
        levels = self._folder.read(key)
        if levels is not None:
            return [level.to(self.model.device) for level in levels]
        levels = self._encoded(index)
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
