"""SAM 2 and SAM from a row of the manifest: the one place that builds networks and loads weights."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd
import sam2
import torch
from sam2.build_sam import build_sam2_video_predictor
from segment_anything import sam_model_registry
from torch import nn

from medsam_nb.errors import CheckpointError, require_known
from medsam_nb.manifest.rows import Checkpoint
from medsam_nb.models import miniature
from medsam_nb.models.state_dicts import read_weights
from medsam_nb.provenance import file_sha256, recorded_sha256

EMBEDDED_WEIGHTS = Path(__file__).parent / "weights"
DEVICES = ("auto", "cuda", "mps", "cpu")
DTYPES = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, eq=False)
class Model:
    """A network with what a result must record about it.

    Attributes
    ----------
    name : str
        Row of the manifest.
    family : {"sam2", "sam"}
    network : torch.nn.Module
        A `SAM2VideoPredictor` (which is also a `SAM2Base`, as the image predictor needs), or a `Sam`.
    image_size : int
        Side of the square input, pixels.
    checkpoint_sha256 : str
        Of the weights' file; "untrained-seed-N" for seeded random weights.
    device : torch.device
    dtype : torch.dtype
        Of the arithmetic: float32, or bfloat16 under autocast.
    encoded_slices : Path, optional
        Folder where features of slices may already lie; see `features.SliceFeatures`.
    """

    name: str
    family: str
    network: nn.Module
    image_size: int
    checkpoint_sha256: str
    device: torch.device
    dtype: torch.dtype
    encoded_slices: Path | None = None

    def precision(self) -> AbstractContextManager:
        """Return the context in which the network runs: autocast for bfloat16."""
        if self.dtype == torch.bfloat16:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()


def choose_device(wish: str = "auto") -> torch.device:
    """Return the device to compute on: the wish, or the best there is ("auto").

    cuDNN, where it is there, is told to take the same algorithm each time: the fastest of the moment may
    round differently from run to run.
    """
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    if wish != "auto":
        return torch.device(wish)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def require_device(wish: str) -> None:
    """Raise CheckpointError if a device is not there; "auto" always is."""
    kind, _, number = wish.partition(":")
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if int(number or 0) >= there.get(kind, 1):
        raise CheckpointError(
            f"device {wish}", "this machine has none that torch can use.", "Write auto or cpu."
        )


def choose_dtype(device: torch.device, wish: str = "auto") -> torch.dtype:
    """Return the arithmetic: bfloat16 on cuda as in the study, float32 elsewhere, unless wished."""
    require_known("dtype", wish, DTYPES, what="arithmetic", error=CheckpointError)
    if wish == "auto":
        wish = "bfloat16" if device.type == "cuda" else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[wish]


def weights_path(checkpoint: Checkpoint, weights_dir: Path) -> Path:
    """Return where a checkpoint's file lies: in the package if embedded, else in `weights_dir`."""
    return (EMBEDDED_WEIGHTS if checkpoint.embedded else Path(weights_dir)) / checkpoint.file


def is_verified(checkpoint: Checkpoint) -> bool:
    """Whether a hash in the manifest, or the package itself, vouches for a checkpoint's file.

    Results of others are computed with what lay there: its hash is recorded, and they are called unverified.
    """
    return checkpoint.sha256 is not None or checkpoint.embedded


def verified_sha256(path: Path, sha256: str | None, name: str = "") -> str:
    """Return the hash of a checkpoint's file, after comparing it with the manifest's.

    Without a hash in the manifest it is compared with that of the first download, if it was recorded.

    Parameters
    ----------
    path : Path
    sha256 : str or None
        What the manifest says.
    name : str
        Of the row, with which the file is fetched; by default the file's.

    Raises
    ------
    CheckpointError
        If the file is missing or has another hash.
    """
    if not path.is_file():
        raise CheckpointError(
            path, "the checkpoint is not there.", f"Get it with `medsam-nb fetch {name or path.stem}`."
        )
    found = file_sha256(path)
    if sha256 is not None and found != sha256:
        raise CheckpointError(
            path,
            f"its SHA-256 is {found}, the manifest says {sha256}.",
            f"Do not use the file: delete it, then `medsam-nb fetch {name or path.stem}`.",
        )
    first = recorded_sha256(path)
    if sha256 is None and first not in (None, found):
        raise CheckpointError(
            path,
            f"its SHA-256 is {found}, that of its first download was {first}.",
            "Delete it and fetch it again; a file of your own needs a row and a name of its own.",
        )
    return found


def device_facts(device: torch.device) -> dict[str, object]:
    """Return what decides how a GPU rounds: its name, the libraries, and their settings; nothing on a CPU."""
    if device.type != "cuda":
        return {}
    return {
        "name": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32": [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32],
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "attention": [
            name
            for name, enabled in {
                "flash": torch.backends.cuda.flash_sdp_enabled(),
                "memory_efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
                "math": torch.backends.cuda.math_sdp_enabled(),
            }.items()
            if enabled
        ],
    }


def has_cuda_extension() -> bool:
    """Return whether sam2's CUDA extension is built: without it the predictor skips filling small holes."""
    try:
        from sam2 import _C  # noqa: F401
    except ImportError:
        return False
    return True


@cache
def configurations(family: str) -> list[str]:
    """Return the configurations that a row of a family may name: those of the package, and "miniature"."""
    if family == "sam":
        return [*sam_model_registry, "miniature"]
    package = Path(sam2.__file__).parent
    found = (path.relative_to(package).as_posix() for path in package.rglob("*.yaml"))
    return [*sorted(name for name in found if "training" not in name), "miniature"]


def _build(checkpoint: Checkpoint) -> nn.Module:
    """Return the network of a row with random weights, at the row's input size."""
    item = f"checkpoint {checkpoint.name}"
    require_known(item, checkpoint.family, ("sam2", "sam"), what="family", error=CheckpointError)
    # A name of the package's own list: Hydra would also take paths, addresses and overrides.
    known = configurations(checkpoint.family)
    what = f"configuration of {checkpoint.family}"
    require_known(item, checkpoint.config, known, what=what, error=CheckpointError)
    size = checkpoint.image_size
    if checkpoint.config == "miniature":
        return {"sam2": miniature.build_sam2, "sam": miniature.build_sam}[checkpoint.family](size)
    if checkpoint.family == "sam":
        network = sam_model_registry[checkpoint.config]()
        own = network.image_encoder.img_size
        if own != size:
            raise CheckpointError(
                checkpoint.name,
                f"image_size is {size}, but SAM's {checkpoint.config} has an input of {own} pixels.",
                f"Write `image_size: {own}`.",
            )
        return network
    side = size // 16  # cells of the memory attention's grid
    overrides = [f"++model.image_size={size}"] + [
        f"++model.memory_attention.layer.{name}.feat_sizes=[{side},{side}]"
        for name in ("self_attention", "cross_attention")
    ]
    return build_sam2_video_predictor(checkpoint.config, device="cpu", hydra_overrides_extra=overrides)


@cache
def _load_once(checkpoint: Checkpoint, weights_dir: Path, sha256: str) -> None:
    load_model(checkpoint, weights_dir, device="cpu", dtype="float32")


def usable_sha256(checkpoint: Checkpoint, weights_dir: Path) -> str:
    """Return the hash of a checkpoint's file after loading it once, so that what is wrong is said at once.

    Raises
    ------
    CheckpointError
        See `load_model`.
    """
    sha256 = verified_sha256(weights_path(checkpoint, weights_dir), checkpoint.sha256, checkpoint.name)
    _load_once(checkpoint, Path(weights_dir), sha256)
    return sha256


def load_model(
    checkpoint: Checkpoint,
    weights_dir: Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    untrained_seed: int | None = None,
) -> Model:
    """Build the network of a manifest row and load its weights.

    Parameters
    ----------
    checkpoint : Checkpoint
    weights_dir : Path
        Folder of downloaded checkpoints.
    device, dtype : str
        "auto", or "cuda", "mps", "cpu"; "auto", or "float32", "bfloat16".
    untrained_seed : int, optional
        Keep the seeded random weights instead of loading any (for tests and timings). The model is
        then called "untrained ..." everywhere.

    Raises
    ------
    CheckpointError
        See `verified_sha256` and `read_weights`; also if the family or configuration is unknown, or the
        weights do not fit the network.
    """
    place = choose_device(device)
    name, sha256 = checkpoint.name, f"untrained-seed-{untrained_seed}"
    if untrained_seed is not None:
        name = f"untrained {name}"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(untrained_seed)
            network = _build(checkpoint)
    else:
        path = weights_path(checkpoint, weights_dir)
        sha256 = verified_sha256(path, checkpoint.sha256, checkpoint.name)
        network = _build(checkpoint)
        state = read_weights(path)
        if file_sha256(path) != sha256:
            raise CheckpointError(path, "it changed while it was read.", "Start again.")
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                path,
                f"its weights do not fit {checkpoint.family} {checkpoint.config} ({reason}).",
                "Check `family` and `config` of the row in the manifest.",
            ) from error
    network = network.to(place).eval().requires_grad_(False)
    size = network.image_size if checkpoint.family == "sam2" else network.image_encoder.img_size
    return Model(name, checkpoint.family, network, size, sha256, place, choose_dtype(place, dtype))


def describe_device(device: str = "auto", dtype: str = "auto") -> dict[str, object]:
    """Return what a study will compute on, for people: device, arithmetic, threads, hole filling."""
    place = choose_device(device)
    facts = {"device": device_facts(place).get("name", place.type)}
    facts["arithmetic"] = str(choose_dtype(place, dtype)).removeprefix("torch.")
    facts["hole filling"] = "yes" if has_cuda_extension() else "no (sam2's CUDA extension is not built)"
    return facts


def describe_models(models: Sequence[Model]) -> pd.DataFrame:
    """Return a line per model: family, size, input, hash of the weights."""
    return pd.DataFrame(
        {
            "model": model.name,
            "family": model.family,
            "million parameters": sum(p.numel() for p in model.network.parameters()) / 1e6,
            "input side, px": model.image_size,
            "SHA-256": model.checkpoint_sha256[:16],
        }
        for model in models
    )
