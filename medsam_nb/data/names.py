"""Names of cases: of any script, distinct, and one safe part of a path on every system."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from medsam_nb.errors import InputError
from medsam_nb.manifest.paths import RESERVED

MOST_BYTES = 100  # of a name that is a part of a path


def clean_name(text: str) -> str:
    """Return a text as a case's name, which is also a folder's: letters of any script, digits, and "_.+-".

    A name of which nothing is left, that a system reserves, or that is too long, gets the first digits of its
    hash, so that different texts stay different.

    Examples
    --------
    >>> clean_name("benign (12)"), clean_name("患者 3"), clean_name("(?)")
    ('benign_12', '患者_3', 'case-86303aa5')
    """
    text = unicodedata.normalize("NFC", text)
    runs = ("".join(run) if kept else "_" for kept, run in groupby(text, _is_kept))
    name = "".join(runs).strip("_.")
    if not name:
        return f"case-{digest_of(text)}"
    if _is_reserved(name) or len(name.encode()) > MOST_BYTES:
        return with_digest(name, digest_of(text))
    return name


def _is_kept(character: str) -> bool:
    """Whether a character may stand in a name: also the vowel signs and accents that follow a letter."""
    return character in "_.+-" or character.isalnum() or unicodedata.category(character).startswith("M")


def _is_reserved(name: str) -> bool:
    return name.split(".")[0].lower() in RESERVED


def digest_of(text: str, digits: int = 8) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]


def with_digest(name: str, digest: str) -> str:
    """Return a name that ends in a digest, cut to what is allowed."""
    start = name.encode()[: MOST_BYTES - len(digest) - 1].decode(errors="ignore")
    return f"{start}-{digest}"


def require_component(name: str, what: str) -> str:
    """Return a name that is one safe part of a path on every system, or raise InputError.

    No separator, no leading or last dot, no control character, not empty, not reserved, at most `MOST_BYTES`
    bytes.
    """
    plain = bool(name) and all(map(_is_kept, name)) and name[0] != "." != name[-1]
    if not plain or _is_reserved(name) or len(name.encode()) > MOST_BYTES:
        raise InputError(repr(name), f"is no {what}.", "Use letters, digits, '_', '-', '+', and '.' inside.")
    return name


def visible(paths: Iterable[Path]) -> list[Path]:
    """Return paths in natural order without what archives made on a Mac add ("._name")."""
    kept = (path for path in paths if not path.name.startswith(".") and "__MACOSX" not in path.parts)
    return sorted(kept, key=lambda path: natural(str(path)))


def natural(text: str) -> list[int | str]:
    """Return a key that sorts "case 2" before "case 10"."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def folded(name: str) -> str:
    """Return what is equal for names that some systems take for one, such as \"A\" and \"a\"."""
    return unicodedata.normalize("NFC", name.casefold())
