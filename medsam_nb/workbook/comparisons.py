"""The comparisons that a study declares: sets included by name, models put in their roles, all of it checked.

A set stands once, in `studies/comparisons.yaml`. In it `$sam2` and `$sam` stand for the models that play
these roles in a study.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template

from medsam_nb.errors import StudyError, WorkbookError, require_known
from medsam_nb.files import read_yaml
from medsam_nb.protocol import designs, metrics, options, prompts
from medsam_nb.protocol.table import COLUMNS
from medsam_nb.statistics.pooling import declare

ROLES = ("sam2", "sam")
INCLUDE = "include"
RESULTS = ("value", "score", "predicted_px", "run_key", "backend")  # columns that no row is chosen by
TASKS = ("2d", "3d")
# What the columns of a task can hold; a column without an entry is left empty by that task.
LEVELS = {
    "2d": {"prompt": prompts.PROMPTS_2D, "mask_choice": designs.MASK_CHOICES_2D},
    "3d": designs.LEVELS | {"mask_scope": options.MASK_SCOPES, "frames": options.FRAMES},
}
FACTORS_OF_3D = ("frame_choice", "direction", "mask_scope", "distance_slices", "distance_mm")


def expanded(
    entries: Sequence[str | Mapping], roles: Mapping[str, str], sets_file: Path, item: object
) -> list[dict]:
    """Return the comparisons of a study, every included set written out.

    Parameters
    ----------
    entries : sequence of str or mapping
        The name of a set; or ``{include: NAME, sam2: MODEL, sam: MODEL}``, a set with models of its own; or
        a comparison (`pooling.declare`).
    roles : mapping
        The models that play "sam2" and "sam" in the study.
    sets_file : Path
        Where the sets stand; read only if one is included.
    item : object
        What an error names.

    Raises
    ------
    StudyError
        If a set is unknown, or nothing says which model plays a role that is needed.
    """
    found: list[dict] = []
    sets: Mapping[str, list] = {}
    for entry in entries:
        if not isinstance(entry, str) and INCLUDE not in entry:
            found.append(_with_models(entry, roles, f"{item}, comparisons"))
            continue
        own = {INCLUDE: entry} if isinstance(entry, str) else dict(entry)
        name = own.pop(INCLUDE)
        for key in own:
            require_known(f"{item}, comparisons {name}", key, ROLES, what="role of a model")
        sets = sets or _read_sets(sets_file)
        require_known(f"{item}, comparisons", name, sets, what=f"set of comparisons in {sets_file.name}")
        players = dict(roles) | own
        found += [_with_models(one, players, f"{item}, comparisons {name}") for one in sets[name]]
    return found


def _read_sets(path: Path) -> dict[str, list[dict]]:
    sets, _ = read_yaml(path, error=StudyError)
    whole = all(
        isinstance(name, str) and isinstance(one, list) and all(isinstance(entry, dict) for entry in one)
        for name, one in sets.items()
    )
    if not whole:
        raise StudyError(
            path, "is no collection of sets.", "Write a name, and below it a list of comparisons."
        )
    return sets


def _with_models(value: object, roles: Mapping[str, str], item: str):
    """Return a value with every `$role` replaced by the model that plays it."""
    if isinstance(value, Mapping):
        return {key: _with_models(one, roles, item) for key, one in value.items()}
    if isinstance(value, list):
        return [_with_models(one, roles, item) for one in value]
    if not isinstance(value, str):
        return value
    try:
        return Template(value).substitute(roles)
    except KeyError as error:
        role = error.args[0]
        require_known(item, role, ROLES, what="role of a model")
        raise StudyError(
            item,
            f"nothing says which model plays {role}.",
            f"Write `parameters: {{{role}: NAME}}` in the study.",
        ) from error
    except ValueError as error:
        raise StudyError(
            item, f"{value!r} has a $ that names no role.", f"Write $$ for the sign, or one of {ROLES}."
        ) from error


def check(
    comparisons: Iterable[Mapping], item: object, known: Mapping[str, Iterable[str]] | None = None
) -> None:
    """Raise where a comparison cannot be made as it stands, before anything is computed.

    Parameters
    ----------
    comparisons : iterable of mapping
        As `expanded` returns them.
    item : object
        What an error names.
    known : mapping of column to names
        What this study's table can hold, such as its models; a column that is not given is not checked.

    Raises
    ------
    StudyError
        With the comparison, the field, the value, and the nearest known name.
    """
    seen: set[str] = set()
    for number, entry in enumerate(comparisons, 1):
        name = entry.get("name")
        where = f"{item}, comparison {name!r}" if isinstance(name, str) else f"{item}, comparison {number}"
        try:
            _check_fields(entry)
            comparison = declare(entry)
        except WorkbookError as error:
            raise StudyError(where, error.problem, error.remedy) from error
        if name in seen:
            raise StudyError(where, "another one has the same name.", "Give each its own.")
        seen.add(name)
        require_known(f"{where}, metric", comparison.metric, metrics.METRICS, what="metric")
        if comparison.test != "difference" and comparison.alternative != "two-sided":
            raise StudyError(
                where,
                f"`alternative` is for the test of a difference, not for {comparison.test}.",
                "Leave it out.",
            )
        if comparison.a == comparison.b:
            raise StudyError(where, "its two sides are the same.", "Let a and b differ.")
        for side in (comparison.a, comparison.b):
            _check_rows(where, {**comparison.where, **side}, known or {})
        _check_column(f"{where}, each", comparison.each or "model")


def _check_fields(entry: Mapping) -> None:
    """Check the types of a comparison's fields, which may be anything that YAML can hold."""
    for field in ("name", "family", "metric", "unit", "test", "alternative", "slices", "each", "vary"):
        if field in entry and (not isinstance(entry[field], str) or not entry[field].strip()):
            raise StudyError("", f"{field} is {entry[field]!r}.", "Write a word.")
    if not isinstance(entry.get("where", {}), Mapping):
        raise StudyError("", f"where is {entry['where']!r}.", "Write columns and values: {mask_choice: ...}.")
    for field in ("a", "b", "where"):
        names = entry.get(field) if isinstance(entry.get(field), Mapping) else {}
        if any(not isinstance(name, str) for name in names):
            raise StudyError("", f"{field} is {entry[field]!r}.", "Begin every entry with a column's name.")
    margin = entry.get("margin", 0.05)
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not math.isfinite(margin):
        raise StudyError("", f"margin is {margin!r}.", "Write a number, in units of the metric: 0.05.")


def _check_column(where: str, column: object) -> None:
    require_known(
        where, column, [name for name in COLUMNS if name not in RESULTS], what="column to choose by"
    )


def _check_rows(where: str, choice: Mapping, known: Mapping[str, Iterable[str]]) -> None:
    """Check which rows one side chooses: columns, and the values they can have."""
    wanted = {column: one if isinstance(one, list) else [one] for column, one in choice.items()}
    for column, values in wanted.items():
        _check_column(where, column)
        if not values or any(isinstance(value, Mapping | list | None | bool) for value in values):
            raise StudyError(where, f"{column} is {choice[column]!r}.", "Write a value or a list of values.")
        for value in values if column == "task" else ():
            require_known(where, value, TASKS, what="task")
    tasks = wanted.get("task", TASKS)
    for column, values in wanted.items():
        if column in FACTORS_OF_3D and "3d" not in tasks:
            raise StudyError(where, f"rows of 2D have no {column}.", "Remove it, or write `task: 3d`.")
        levels = [name for task in tasks for name in LEVELS[task].get(column, ())]
        names = levels or {"protocol": options.PROTOCOLS}.get(column) or known.get(column)
        for value in values if names else ():
            require_known(where, value, dict.fromkeys(names), what=column.replace("_", " "))
