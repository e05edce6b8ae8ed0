"""The errors a user can mend: each names the item, what is wrong with it, and what to do."""

import difflib
import re
from collections.abc import Iterable

MANY_NAMES = 24  # a message lists no more
# Characters that steer a terminal, turn the direction of text, or cannot be encoded.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return text in which characters that steer a terminal stand as their escapes.

    Examples
    --------
    >>> printable("a\x1b[31m case")
    'a\\x1b[31m case'
    """
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class WorkbookError(Exception):
    """A problem that its reader can solve.

    Names and words of files stand in it as `printable` shows them.

    Parameters
    ----------
    item : object
        The file, data set, parameter or case that is wrong.
    problem : str
        What is wrong with it.
    remedy : str
        What to do about it.
    """

    def __init__(self, item: object, problem: str, remedy: str) -> None:
        self.item, self.problem, self.remedy = (printable(str(part)) for part in (item, problem, remedy))
        super().__init__(f"{self.item}: {self.problem} {self.remedy}")

    def __reduce__(self):  # the default loses two of the three arguments between processes
        return type(self), (self.item, self.problem, self.remedy)


class InputError(WorkbookError):
    """An image, mask or table cannot be used; a study records the case and goes on."""


class ManifestError(WorkbookError):
    """A row of the data manifest is wrong or missing."""


class CheckpointError(WorkbookError):
    """A model's weights are missing, damaged, or not what the manifest says."""


class StudyError(WorkbookError):
    """A study file or a parameter of it is wrong."""


def require_known(
    item: object, value: object, known: Iterable[str], *, what: str = "value", error: type = StudyError
) -> None:
    """Raise if a name is not among the known ones; the message suggests the nearest.

    Parameters
    ----------
    item : object
        Where the name stands, for the message.
    value : object
        The name that was given.
    known : iterable of str
    what : str
        What it names, such as "prompt".
    error : type
        A `WorkbookError`.

    Examples
    --------
    >>> require_known("prompts", "one_bx", ["one_point", "one_box"], what="prompt")
    Traceback (most recent call last):
    ...
    medsam_nb.errors.StudyError: prompts: 'one_bx' is no known prompt. Did you mean 'one_box'? Known: ...
    """
    names = list(known)
    if value in names:
        return
    near = difflib.get_close_matches(str(value), names, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    if len(names) > MANY_NAMES:
        names = [*difflib.get_close_matches(str(value), names, n=5, cutoff=0.3), f"... ({len(names)} in all)"]
    raise error(item, f"{value!r} is no known {what}.", f"{hint}Known: {', '.join(names)}.")


def require_whole(item: object, value: object, least: int, most: int | None = None) -> None:
    """Raise StudyError unless a value is a whole number from `least` on, up to `most` if there is one.

    Examples
    --------
    >>> require_whole("memory window, stride", 0, 1)
    Traceback (most recent call last):
    ...
    medsam_nb.errors.StudyError: memory window, stride: is 0. Use a whole number, 1 or more.
    """
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < least or (most is not None and value > most):
        allowed = f"{least} or more" if most is None else f"{least} to {most}"
        raise StudyError(item, f"is {value!r}.", f"Use a whole number, {allowed}.")
