"""Reading weights: a state dict and nothing else, without running any code that a file may hold."""

import pickle
import zipfile
from pathlib import Path

import torch

from medsam_nb.errors import CheckpointError

MOST_WEIGHT = 1e9  # the weights of trained networks are smaller by many orders
NAMES_SHOWN = 5


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict; half precision becomes float32.

    It stands alone in its file, or under "model", as Meta publishes it.

    Raises
    ------
    CheckpointError
        If the file is damaged, holds anything but a state dict, or a tensor in it is no table of finite
        real numbers, is larger than the file, or beyond what a trained network has.
    """
    _require_stored(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            path,
            "it is no file of weights, or holds Python objects too, and loading it could run foreign code.",
            "Use a file from its publisher; it was not loaded.",
        ) from error
    except Exception as error:  # the loader's own words for a damaged file are of any kind
        raise _damaged(path, error) from error
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    _require_tensors(path, state)
    try:
        weights = {name: tensor.detach().float() for name, tensor in state.items()}
        _require_numbers(path, weights)
    except (RuntimeError, TypeError, MemoryError) as error:
        raise _damaged(path, error) from error
    return weights


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return CheckpointError(path, f"it is damaged ({reason}).", "Delete the file and fetch it again.")


def _require_stored(path: Path) -> None:
    """Refuse an archive that unpacks to more than it is, or a part of which is not as it was written.

    PyTorch writes its archives uncompressed, with a checksum of each part; its loader does not look at that.
    """
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            changed = archive.testzip() if unpacked <= path.stat().st_size else None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _damaged(path, error) from error
    if unpacked > path.stat().st_size:
        raise CheckpointError(
            path,
            f"it would unpack to {unpacked:,} bytes, more than the file has.",
            "Use a file that torch.save wrote; it was not loaded.",
        )
    if changed:
        raise _damaged(path, zipfile.BadZipFile(f"the checksum of {changed} is another"))


def _require_tensors(path: Path, state: object) -> None:
    """Raise CheckpointError unless all is names with tables of real numbers, no larger than the file."""
    alone = "Save the network's `state_dict()` alone, or under the key 'model'."
    if not isinstance(state, dict):
        raise CheckpointError(path, f"it holds a {type(state).__name__}, no state dict.", alone)
    if not state:
        raise CheckpointError(path, "it holds an empty state dict.", alone)
    others = {name: value for name, value in state.items() if not isinstance(value, torch.Tensor)}
    if others or not all(isinstance(name, str) for name in state):
        shown = [f"{name!r}: {type(value).__name__}" for name, value in (others or state).items()]
        raise CheckpointError(
            path,
            f"it is no plain state dict; it holds {', '.join(shown[:NAMES_SHOWN])}"
            f"{', ...' if len(shown) > NAMES_SHOWN else ''}.",
            alone,
        )
    for name, tensor in state.items():
        kind = _wrong_kind(tensor)
        if kind:
            raise CheckpointError(path, f"the tensor {name!r} is {kind}, no table of real numbers.", alone)
    values = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if values > 2 * path.stat().st_size:  # a few layers may share their weights
        raise CheckpointError(
            path,
            f"its tensors have {values:,} bytes, more than the file.",
            "Save it without views of tensors.",
        )


def _wrong_kind(tensor: torch.Tensor) -> str | None:
    """Return what a tensor is if it is no plain table of real numbers in memory."""
    if tensor.layout != torch.strided or tensor.is_nested:
        return f"of the layout {tensor.layout}"
    if tensor.device.type != "cpu":
        return f"on the device {tensor.device.type}"
    if tensor.is_quantized or not tensor.is_floating_point():
        return str(tensor.dtype).removeprefix("torch.")
    return None


def _require_numbers(path: Path, weights: dict[str, torch.Tensor]) -> None:
    """Raise CheckpointError for NaN, infinity, numbers beyond any network's, or nothing but zeros."""
    for name, tensor in weights.items():
        if tensor.numel() and not float(tensor.abs().max()) <= MOST_WEIGHT:  # NaN is not smaller either
            raise CheckpointError(
                path,
                f"the tensor {name!r} holds NaN or numbers beyond {MOST_WEIGHT:g}.",
                "No trained network has such weights: fetch the file again, or train with a smaller step.",
            )
    if not any(bool(tensor.any()) for tensor in weights.values()):
        raise CheckpointError(path, "all its weights are 0.", "Use the file of a trained network.")
