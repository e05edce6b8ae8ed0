"""What a result depends on besides its values: hashes of files, the code of folders, versions, the commit."""

import ast
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from hashlib import file_digest, sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from medsam_nb.errors import InputError, StudyError
from medsam_nb.files import read_text, write_atomically

PACKAGE = Path(__file__).parent
# The folders whose code decides a kind of result. What they import from others (rows of the manifest, paths,
# errors, pictures) decides no value, or stands in the key by its content.
ROWS = ("protocol", "models", "evaluation")
PREPARED_CASES = ("protocol", "data")
ENCODED_SLICES = ("models",)
# Packages whose version can change a value, and so is a part of the key.
COMPUTING_PACKAGES = (
    *("numpy", "opencv-python-headless", "pillow", "pymeshmetrics", "sam2", "scikit-image"),
    *("segment-anything", "torch", "torchvision", "vtk"),  # VTK makes the surfaces of pymeshmetrics
)
# Packages that read images.
READING_PACKAGES = (
    *("h5py", "highdicom", "nibabel", "nilearn", "numpy", "opencv-python-headless", "pillow", "pydicom"),
    *("scipy", "SimpleITK"),
)


SETTLED_S = 2.0  # a file changed later than this may change again without another time
_HASHES: dict[tuple, str] = {}


def _state(path: Path) -> tuple:
    """Return what changes when a file is written or replaced."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as it is now; it is read again only if it was written or replaced."""
    before = _state(path)
    if before not in _HASHES:
        with open(path, "rb") as file:
            found = file_digest(file, "sha256").hexdigest()
        if _state(path) != before or time.time() - max(before[3:]) / 1e9 < SETTLED_S:
            return found
        _HASHES[before] = found
    return _HASHES[before]


def _hash_record(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


def record_sha256(path: Path) -> str:
    """Write the hash of a file that no manifest states beside it, as `sha256sum` does; return the hash."""
    found = file_sha256(path)
    write_atomically(_hash_record(path), f"{found}  {path.name}\n".encode())
    return found


def recorded_sha256(path: Path) -> str | None:
    """Return the hash that was recorded when a file was first there, or None.

    Raises
    ------
    InputError
        If the record is damaged.
    """
    record = _hash_record(path)
    if not record.exists():
        return None
    words = read_text(record).split()
    if not words or len(words[0]) != 64 or not set(words[0]) <= set("0123456789abcdef"):
        raise InputError(record, "holds no SHA-256.", f"Delete it and {path.name}, and fetch that again.")
    return words[0]


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


def _computing_part(source: str) -> str:
    """Return a module's code without comments, docstrings and layout: what can change a value.

    Examples
    --------
    >>> _computing_part("'A docstring.'\\nx = (1)  # one")
    'x = 1'
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


@cache
def code_sha256(*folders: str, package: Path | None = None) -> str:
    """Return the hash of the code in folders of the package, as far as it can change a value.

    Parameters
    ----------
    *folders : str
        Such as `ROWS`; subfolders count.
    package : Path, optional
        Another copy of the package (for tests).
    """
    root, digest = package or PACKAGE, sha256()
    for path in sorted(path for folder in folders for path in (root / folder).rglob("*.py")):
        code = _computing_part(path.read_text(encoding="utf-8"))
        digest.update(f"{path.relative_to(root).as_posix()}\0{code}\0".encode())
    return digest.hexdigest()


@cache
def git_commit() -> str:
    """Return the commit of the working tree, with "+changes" if it differs; "unknown" without git."""
    try:
        run = [
            subprocess.run(["git", *words], cwd=PACKAGE, capture_output=True, text=True, check=True)
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


def as_json(value: object) -> str:
    """Return plain values as JSON in one form: keys sorted, nothing that has no JSON form."""
    return json.dumps(value, sort_keys=True, allow_nan=False)


def peak_memory_mb() -> int | None:
    """Return the most memory that this process has held, MB; None where the system does not say."""
    with suppress(
        OSError
    ):  # Linux, where `getrusage` starts from the peak of the process that started this one
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
        peaks = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")]
        if peaks:
            return peaks[0] // 1024
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024 * 1024 if sys.platform == "darwin" else 1024)
