"""Where the project lies and which code is running: its folder, commit, source hash, package versions."""

import subprocess
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from medsam_nb.errors import StudyError

# Packages whose version can change a value, and so is a part of the key.
COMPUTING_PACKAGES = ("numpy", "opencv-python-headless", "sam2", "scikit-image", "segment-anything", "torch")
# Modules that only present results; every other module of the package is hashed into the key.
PRESENTING_MODULES = (
    "__init__", "claims", "cli", "contrasts", "errors", "examples", "fetch", "figures", "finetuning",
    "gallery", "held_out", "kernels", "losses", "manifest_views", "model_cases", "model_report", "muon",
    "overviews", "panels", "paper", "pooling", "project", "published", "quality", "rankings", "report",
    "retention", "runner", "scoreboard", "sequence_steps", "stats", "study", "tables", "targets", "training",
    "training_batches", "training_data", "training_log", "training_steps", "training_study",
    "training_weights", "viewer",
)  # fmt: skip


@cache
def project_root() -> Path:
    """Return the folder that holds `data_manifest.yaml`: here, or above.

    Raises
    ------
    StudyError
        If there is none.
    """
    for folder in (Path.cwd(), *Path.cwd().parents, *Path(__file__).parents):
        if (folder / "data_manifest.yaml").is_file():
            return folder
    raise StudyError(Path.cwd(), "no data_manifest.yaml here or above.", "Start in the workbook's folder.")


@cache
def code_sha256() -> str:
    """Return the hash of the modules that can change a value."""
    digest = sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in PRESENTING_MODULES:
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@cache
def git_commit() -> str:
    """Return the commit of the working tree, with "+changes" if it differs; "unknown" without git."""
    try:
        run = [
            subprocess.run(
                ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
            )
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return run[0].stdout.strip() + ("+changes" if run[1].stdout.strip() else "")


def package_versions(names: Sequence[str]) -> dict[str, str]:
    """Return installed versions by name; "absent" where a package is not installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found
