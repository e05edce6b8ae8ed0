"""What the manifest lets a name and a path be: a part of a path, or a place below a folder."""

import re
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Annotated

from pydantic import AfterValidator, Field

RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
PLACEHOLDERS = ("case", "patient", "object", "part")  # of patterns
MOST_NAME_BYTES, MOST_PATH_BYTES = 255, 1000  # what common file systems take


def require_different(values: Iterable[Hashable], what: str) -> None:
    """Raise ValueError for a value that stands twice."""
    twice = sorted(str(value) for value, count in Counter(values).items() if count > 1)
    if twice:
        raise ValueError(f"{what} {', '.join(twice)} stands twice; keep one")


def _portable(name: str) -> str:
    """Refuse a name that Windows reserves or would shorten."""
    if name.split(".")[0].lower() in RESERVED or name.endswith("."):
        raise ValueError(f"{name!r} is no name of a file or folder on Windows")
    return name


# One safe part of a path: no separator, no leading dot (nor "." and ".."), at most 100 characters.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_+-][A-Za-z0-9_.+-]{0,99}$"), AfterValidator(_portable)]


def _found(path: str) -> str:
    """Refuse a path that leaves its folder, or whose parts are no names of files."""
    parts = path.split("/")
    if path.startswith(("/", "~")) or "\\" in path or ".." in parts or re.match("[A-Za-z]:/", path):
        raise ValueError(f"{path!r} must be a path below the folder, without '..'")
    if any(part.startswith(".") or not part.strip() for part in parts):
        raise ValueError(f"{path!r} must name a file or folder, without empty or hidden parts")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        raise ValueError(f"{path!r} holds a character that cannot be printed")
    if len(path.encode()) > MOST_PATH_BYTES or any(len(part.encode()) > MOST_NAME_BYTES for part in parts):
        raise ValueError(f"a path of {len(path.encode())} bytes; no part may have over {MOST_NAME_BYTES}")
    return path


def _made(path: str) -> str:
    """Refuse also what another system does not take: the path is one that the workbook makes."""
    if re.match("[A-Za-z]:", path):
        raise ValueError(f"{path!r} must be a path below the folder, without '..'")
    for part in _found(path).split("/"):
        _portable(part)
    return path


def require_apart(paths: Iterable[str]) -> None:
    """Raise ValueError for files of one place, or one below another, where case does not count."""
    ordered = sorted(path.casefold() for path in paths)
    require_different(ordered, "the path")
    for path in ordered:
        inside = next((other for other in ordered if other.startswith(f"{path}/")), None)
        if inside is not None:
            raise ValueError(f"{path} is a file, so that {inside} cannot lie below it")


def _known_placeholders(pattern: str) -> str:
    """Refuse what looks like a placeholder and is none."""
    for name in re.findall(r"\{(\w*)\}", pattern):
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            raise ValueError(f"{{{name}}} is no placeholder; known: {known}")
    return pattern


# Of files that the workbook writes, and of those that lie on a disk already, called as their owner likes.
MadePath = Annotated[str, AfterValidator(_made)]
FoundPath = Annotated[str, AfterValidator(_found)]
CasePattern = Annotated[
    str, Field(pattern=r"\{case\}"), AfterValidator(_found), AfterValidator(_known_placeholders)
]
