"""What a result depends on besides its data: the code of folders, package versions, the commit."""

import ast
import json
import subprocess
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from medsam_nb.errors import StudyError

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
    *("highdicom", "nibabel", "nilearn", "numpy", "opencv-python-headless", "pillow", "pydicom", "scipy"),
    "SimpleITK",
)


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
