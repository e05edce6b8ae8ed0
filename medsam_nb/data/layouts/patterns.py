"""Paths with placeholders: which files of a folder fit, and what the placeholders stand for in them.

Everything but the placeholders is literal. Endings fit in capitals too, as cameras and old systems write
them, and accents however a system spells them.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medsam_nb.data.names import visible
from medsam_nb.data.reading import suffix_of

ANY = {"patient": "[^/]+", "case": "[^/]+", "part": "[^/]*"}
PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Match:
    """A file that fits a pattern.

    Attributes
    ----------
    path : Path
    values : mapping of str to str
        What each placeholder stands for.
    """

    path: Path
    values: Mapping[str, str]


def find_matches(folder: Path, pattern: str, names: Mapping[str, Collection[str]] = {}) -> list[Match]:  # noqa: B006
    """Return the files (or folders) that fit a pattern, in natural order.

    Parameters
    ----------
    folder : Path
    pattern : str
        Below the folder, such as "{case}/anat/{case}_T1w.nii.gz". What stands twice must be the same twice.
    names : mapping of str to collection of str
        What a placeholder may stand for, where that is known; a case in doubt is one of these.
    """
    expressions = [_expression(pattern, names, greedy) for greedy in (True, False)]
    found = []
    for path in visible(folder.glob(_glob(pattern))):
        matches = _values(expressions, path.relative_to(folder).as_posix())
        if matches:
            known = [values for values in matches if values.get("case") in names.get("case", ())]
            found.append(Match(path, (known or matches)[0]))
    return found


def values_in(pattern: str, paths: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return those of the paths that fit a pattern, with what its placeholders stand for in them.

    Examples
    --------
    >>> values_in("{case}/ct.nii", ["a/ct.nii", "b/ct.nii", "b/seg.nii"])
    {'a/ct.nii': {'case': 'a'}, 'b/ct.nii': {'case': 'b'}}
    """
    expression = _expression(pattern, {}, False)
    found = ((path, _values([expression], path)) for path in paths)
    return {path: values[0] for path, values in found if values}


def _values(expressions: Iterable[re.Pattern], path: str) -> list[dict[str, str]]:
    text = unicodedata.normalize("NFC", path)
    matches = (expression.fullmatch(text) for expression in expressions)
    return [match.groupdict() for match in matches if match]


def _glob(pattern: str) -> str:
    """Return a glob that fits at least what the pattern does: `*` for all that is not plain."""
    parts = []
    for part in pattern.split("/"):
        ending = suffix_of(Path(part))
        stem = PLACEHOLDER.sub("*", part[: len(part) - len(ending)])
        stem = re.sub(r"[^\w .+*-]|[^\x00-\x7f]", "*", stem)  # brackets mean something to glob
        parts.append(re.sub(r"\*+", "*", stem + ("*" if ending else "")))
    return "/".join(parts)


def _expression(pattern: str, names: Mapping[str, Collection[str]], greedy: bool) -> re.Pattern:
    """Return a pattern as a regular expression with a group for each placeholder."""
    pattern = unicodedata.normalize("NFC", pattern)
    ending = suffix_of(Path(pattern))
    stem, seen, text = pattern[: len(pattern) - len(ending)], set(), ""
    for part in re.split(r"(\{\w+\})", stem):
        name = part[1:-1] if PLACEHOLDER.fullmatch(part) else None
        if name is None:
            text += re.escape(part)
        elif name in seen:
            text += f"(?P={name})"
        else:
            one_of = "|".join(map(re.escape, sorted(names.get(name, ()), key=len, reverse=True)))
            any_text = ANY.get(name) or one_of or "[^/]+"
            text += f"(?P<{name}>{any_text}{'' if greedy or name != 'case' else '?'})"
        seen.add(name)
    return re.compile(f"{text}(?i:{re.escape(ending)})")


def filled(pattern: str, values: Mapping[str, str]) -> str:
    """Return a pattern with its placeholders filled in; those without a value are left out."""
    return PLACEHOLDER.sub(lambda found: values.get(found[1], ""), pattern)


def literal_length(pattern: str) -> int:
    """Return how many characters of a pattern are fixed: of two that fit, the longer one means a file."""
    return len(PLACEHOLDER.sub("", pattern))
