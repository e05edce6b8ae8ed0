"""Which of a data set's cases count, where its row chooses some by name."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from medsam_nb.data.names import clean_name
from medsam_nb.data.sources import Source
from medsam_nb.errors import InputError
from medsam_nb.manifest.rows import DataSet

SHOWN = 6  # names in a message


def chosen_cases(row: DataSet, cases: Mapping[str, Source | None]) -> dict[str, Source | None]:
    """Return the cases that a row's `cases` and `left_out_cases` leave, in their order.

    Raises
    ------
    InputError
        If a name fits no case (a misspelt one would silently change the data set), or none is left.
    """
    wanted = set(cases) if row.cases is None else _named(row, "cases", row.cases, cases)
    kept = wanted - _named(row, "left_out_cases", row.left_out_cases, cases)
    if not kept:
        problem = "`cases` and `left_out_cases` leave no case."
        raise InputError(row.name, problem, "Leave out fewer.")
    return {name: source for name, source in cases.items() if name in kept}


def _named(row: DataSet, field: str, words: list[str], cases: Mapping[str, Source | None]) -> set[str]:
    """Return the cases that words of a field mean: names as in the case table or as in the folder."""
    found: set[str] = set()
    for word in words:
        fitting = {name for name in cases if name in (word, clean_name(word)) or _fits(name, word)}
        if not fitting:
            listed = ", ".join(list(cases)[:SHOWN]) + (", ..." if len(cases) > SHOWN else "")
            problem = f"`{field}` names {word!r}, which is none of its {len(cases)} cases ({listed})."
            raise InputError(row.name, problem, "Correct the name in the manifest row.")
        found |= fitting
    return found


def _fits(name: str, word: str) -> bool:
    """Whether a name fits a word in which `*` stands for any text; nothing else has a meaning."""
    return "*" in word and fnmatchcase(name, word.replace("[", "[[]").replace("?", "[?]"))
