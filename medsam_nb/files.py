"""Files that appear whole or not at all, whoever is killed while they are written."""

import os
import secrets
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
