"""Files that appear whole or not at all, whoever is killed while they are written."""

import os
import secrets
import shutil
from collections.abc import Collection
from pathlib import Path


def unfinished(folder: Path) -> Path:
    """Return an unused name in a folder, for what moves to its place when it is whole.

    Unlike the files of `tempfile`, what is made there gets the usual permissions: colleagues who share
    a folder can read each other's results.
    """
    return folder / f".partial-{secrets.token_hex(8)}"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader or a killed run sees either nothing or all of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(path.parent)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_made(folder: Path, inside: Path, holds: Collection[str]) -> None:
    """Remove a folder that the workbook made, and prove before that it is one; if there is none, do nothing.

    Parameters
    ----------
    folder : Path
        A child of `inside`.
    inside : Path
        The folder in which the workbook makes folders of this kind.
    holds : collection of str
        Names of the files that it makes in them; a folder that holds anything else is not touched.

    Raises
    ------
    ValueError
        If the folder is not a plain child of `inside`, is a link, or holds something else.
    """
    if (
        folder.name in ("", ".", "..")
        or folder.parent != inside
        or folder.resolve().parent != inside.resolve()
    ):
        raise ValueError(f"{folder} is no folder inside {inside}; it was not removed")
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise ValueError(f"{folder} is no plain folder; it was not removed")
    foreign = [
        path.name for path in folder.iterdir() if path.name not in holds and path.name[:9] != ".partial-"
    ]
    if foreign:
        raise ValueError(
            f"{folder} holds {', '.join(sorted(foreign)[:3])}, which is not ours; it was not removed"
        )
    shutil.rmtree(folder)
