"""Files: written whole or not at all; text read within limits, and what is wrong named with its line."""

import json
import math
import os
import re
import secrets
import shutil
import stat
from collections import Counter
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

from medsam_nb.errors import UNPRINTABLE, InputError, StudyError, WorkbookError

PARTIAL = ".partial-"  # begins the name of what is not yet whole
UNFINISHED = re.compile(re.escape(PARTIAL) + "[0-9a-f]{16}")
MOST_TEXT_BYTES = 4 << 20
MOST_YAML_VALUES = 250_000  # with what aliases repeat; three seconds to read
MOST_YAML_LEVELS = 40
MOST_DIGITS = 40  # of a number
# What YAML reads in another way than it looks: base 60, octal.
SURPRISING_NUMBER = re.compile(r"[-+]?(?:[0-9][0-9_]*:.*|0[0-9_]+)")
PLAIN_TAGS = {"str", "int", "float", "bool", "null", "map", "seq", "merge"}
QUOTES = "Put it in quotes if it is text."


def unfinished(folder: Path) -> Path:
    """Return an unused name in a folder, for what moves to its place when it is whole.

    Unlike the files of `tempfile`, what is made there gets the usual permissions: colleagues who share
    a folder can read each other's results.
    """
    return folder / f"{PARTIAL}{secrets.token_hex(8)}"


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
    except IsADirectoryError as error:
        temporary.unlink(missing_ok=True)
        words = f"{path.name} is a folder, where this file belongs; move it away"
        raise IsADirectoryError(error.errno, words, str(path)) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_made(folder: Path, inside: Path, holds: Collection[str] = ()) -> None:
    """Remove a folder that the workbook made, and prove before that it is one; if there is none, do nothing.

    Nothing else in the package removes folders.

    Parameters
    ----------
    folder : Path
        A child of `inside`.
    inside : Path
        The folder in which the workbook makes folders of this kind.
    holds : collection of str
        Patterns of the files that it makes in them, such as "*.png"; a folder that holds anything else is not
        touched. What `unfinished` named holds whatever was to become whole.

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
    foreign = [path.name for path in folder.iterdir() if not _is_made(path, holds)]
    if foreign and not UNFINISHED.fullmatch(folder.name):
        raise ValueError(
            f"{folder} holds {', '.join(sorted(foreign)[:3])}, which is not ours; it was not removed"
        )
    shutil.rmtree(folder)


def _is_made(path: Path, holds: Collection[str]) -> bool:
    return bool(UNFINISHED.fullmatch(path.name)) or any(fnmatchcase(path.name, one) for one in holds)


def write_study_file(path: Path, data: bytes) -> None:
    """Write a file of a study atomically; StudyError where that cannot be, as on a full disk."""
    try:
        write_atomically(path, data)
    except OSError as failure:
        reason = failure.strerror or failure
        remedy = "Free space or choose another folder, and run again: what is finished is kept."
        raise StudyError(path, f"cannot be written ({reason}).", remedy) from failure


def read_text(path: Path, *, error: type[WorkbookError] = InputError) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Raises
    ------
    error
        If there is no such file, it is none (a pipe would be waited for), is larger than
        `MOST_TEXT_BYTES`, or is in another encoding or no text.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise error(path, "is no file.", "Give the path of a text file.")
        with path.open("rb") as file:
            data = file.read(MOST_TEXT_BYTES + 1)
    except (OSError, ValueError) as failure:  # ValueError: NUL in the name
        reason = getattr(failure, "strerror", None) or failure
        raise error(path, f"cannot be read ({reason}).", "Check the path and its rights.") from failure
    if len(data) > MOST_TEXT_BYTES:
        raise error(path, f"has more than {MOST_TEXT_BYTES >> 20} MiB.", "Look whether it is the right file.")
    save = "Save it as UTF-8 text (an editor's 'Save with encoding')."
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise error(path, "is text in UTF-16 or UTF-32.", save)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        line = data.count(b"\n", 0, failure.start) + 1
        raise error(f"{path}, line {line}", f"byte {data[failure.start]:#x} is no UTF-8.", save) from failure
    if "\0" in text:
        raise error(path, "holds the character NUL: it is no text, or UTF-16 without a mark.", save)
    return text


def read_yaml(path: Path, *, error: type[WorkbookError] = InputError) -> tuple[dict, yaml.Node]:
    """Read a YAML file whose outermost level is a mapping, and nothing but plain values; no code runs.

    Returns
    -------
    content : dict
    tree : yaml.Node
        The same with its places in the file, for `locate`.

    Raises
    ------
    error
        With file and line; see `read_text` and `parse_yaml`.
    """
    content, tree = parse_yaml(read_text(path, error=error), path, error=error)
    if content is None:
        raise error(path, "is empty.", "Write lines such as `name: value`.")
    if not isinstance(content, dict):
        raise error(path, "its outermost level is no mapping.", "Write lines such as `name: value`.")
    return content, tree


def parse_yaml(
    text: str, item: object, *, error: type[WorkbookError] = InputError
) -> tuple[object, yaml.Node | None]:
    """Return the plain values of a YAML text, and its node tree.

    Refused, with their line: what is no YAML, other values than text, numbers, true, false, null, lists and
    mappings (dates, tags, Python objects), keys that are no text or stand twice in a mapping, aliases within
    what they stand for, numbers that YAML reads otherwise than they look, characters that steer a terminal,
    and more than `MOST_YAML_VALUES` values (aliases count as what they repeat) or `MOST_YAML_LEVELS` levels.

    Parameters
    ----------
    text : str
    item : object
        What an error message names.
    error : type
        A `WorkbookError`.
    """
    Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    last = len(text.rstrip().splitlines()) - 1

    def refuse(mark: yaml.Mark | None, problem: str, remedy: str = "Mend the line.") -> WorkbookError:
        # The parsers differ in where a text ends that breaks off: it is the last line that holds something.
        return error(f"{item}, line {min(mark.line, last) + 1}" if mark else item, problem, remedy)

    bad = UNPRINTABLE.search(text.replace("\r", "\n"))
    if bad:
        line = text.count("\n", 0, bad.start()) + 1
        raise error(f"{item}, line {line}", f"the character {bad[0]!r} is no text.", "Remove it.")
    try:
        levels = 0
        for count, event in enumerate(yaml.parse(text, Loader=Loader)):  # before anything that recurses
            levels += isinstance(event, yaml.CollectionStartEvent)
            levels -= isinstance(event, yaml.CollectionEndEvent)
            if levels > MOST_YAML_LEVELS:
                raise refuse(event.start_mark, f"more than {MOST_YAML_LEVELS} levels.", "Nest less deeply.")
            if count > 2 * MOST_YAML_VALUES:
                raise refuse(event.start_mark, f"more than {MOST_YAML_VALUES} values.", "Divide the file.")
        loader = Loader(text)
        try:
            tree = loader.get_single_node()
            if tree is not None:
                _require_plain(tree, loader, refuse)
            return (None if tree is None else loader.construct_document(tree)), tree
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as failure:
        raise refuse(failure.problem_mark, f"is no YAML: {failure.problem}.") from failure
    except yaml.YAMLError as failure:
        raise error(item, f"is no YAML: {' '.join(str(failure).split())}.", "Mend the file.") from failure


def _require_plain(tree: yaml.Node, loader: yaml.SafeLoader, refuse) -> None:
    """Raise what `refuse` makes of the first node that `parse_yaml` does not allow."""
    # Values and levels of a node, with what aliases repeat; 0 while they are counted.
    sizes: dict[yaml.Node, tuple[int, int]] = {}

    def measure(node: yaml.Node) -> tuple[int, int]:
        mark = node.start_mark
        if node in sizes:
            if not sizes[node][0]:
                raise refuse(mark, "an alias stands within what it stands for.", "Write the values out.")
            return sizes[node]
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind not in PLAIN_TAGS:
            raise refuse(mark, f"a value of the kind {kind!r} is not allowed here.", QUOTES)
        sizes[node], inner = (0, 0), []
        if isinstance(node, yaml.ScalarNode):
            _require_plain_scalar(node, loader, refuse)
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode) or not key.tag.endswith((":str", ":merge")):
                    raise refuse(key.start_mark, f"the key {_shown(key)} is no text.", QUOTES)
                if key.value in lines:
                    again = f"{key.value!r} stands here again (first in line {lines[key.value]})."
                    raise refuse(key.start_mark, again, "Keep one of the two.")
                lines[key.value] = key.start_mark.line + 1
                inner += [measure(key), measure(value)]
        else:
            inner = [measure(value) for value in node.value]
        size, levels = 1 + sum(one for one, _ in inner), 1 + max((deep for _, deep in inner), default=0)
        if size > MOST_YAML_VALUES or levels > MOST_YAML_LEVELS + 1:
            least = f"more than {MOST_YAML_VALUES} values or {MOST_YAML_LEVELS} levels"
            raise refuse(mark, f"with what its aliases repeat it has {least}.", "Use fewer aliases.")
        sizes[node] = size, levels
        return sizes[node]

    measure(tree)


def _require_plain_scalar(node: yaml.ScalarNode, loader: yaml.SafeLoader, refuse) -> None:
    kind, mark = node.tag.rpartition(":")[2], node.start_mark
    if UNPRINTABLE.search(node.value):
        raise refuse(mark, f"{_shown(node)} holds a character that cannot be printed.", "Remove it.")
    if kind in ("str", "merge"):
        return
    if kind in ("int", "float") and SURPRISING_NUMBER.fullmatch(node.value):
        raise refuse(mark, f"{_shown(node)} is a number to base 8 or 60 in YAML.", f"Drop the zero. {QUOTES}")
    if len(node.value) > MOST_DIGITS:
        raise refuse(mark, f"a number of {len(node.value)} characters.", f"Write it shorter. {QUOTES}")
    try:
        loader.construct_object(node)
    except (ValueError, KeyError, OverflowError) as failure:
        raise refuse(mark, f"{_shown(node)} is no {kind}.", QUOTES) from failure


def _shown(node: yaml.Node) -> str:
    """Return a node's own words, shortened."""
    if not isinstance(node, yaml.ScalarNode):
        return {"sequence": "[...]", "mapping": "{...}"}[node.id]
    return repr(node.value if len(node.value) <= MOST_DIGITS else node.value[:MOST_DIGITS] + "...")


def locate(tree: yaml.Node, location: tuple) -> tuple[int, str]:
    """Return the line of a field in a file, and its dotted name.

    Parameters
    ----------
    tree : yaml.Node
        Of `read_yaml`.
    location : tuple of str or int
        Keys and indices from the outside inwards, as in a finding of pydantic. Parts that are not in
        the file (a missing field, the member of a union) are passed over; a missing last one is named.
    """
    node, line, names = tree, tree.start_mark.line + 1, []
    for part in location:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line, node = key.start_mark.line + 1, value
                    names.append(str(part))
                    break
            else:
                if part == location[-1]:
                    names.append(str(part))
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            names.append(str(part))
            if part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
    return line, ".".join(names)


def read_json(path: Path, *, error: type[WorkbookError] = InputError) -> dict:
    """Read a JSON file that holds one object, by the letter of RFC 8259.

    Raises
    ------
    error
        With file and, where it is known, line: for what is no JSON or no object, a name that stands twice
        in an object, NaN and numbers that no float holds, nesting without end, halves of characters;
        see also `read_text`.
    """

    def refuse_constant(name: str) -> float:
        raise ValueError(f"{name} is no number of JSON")

    def finite(text: str) -> float:
        value = float(text)
        return value if math.isfinite(value) else refuse_constant(text[:MOST_DIGITS])

    def unique(pairs: list[tuple[str, object]]) -> dict:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
            raise ValueError(f"{twice!r} stands twice in an object")
        return found

    text = read_text(path, error=error)
    remedy = "Mend the file, or delete it if the workbook made it: it is made again."
    try:
        content = json.loads(
            text, parse_constant=refuse_constant, parse_float=finite, object_pairs_hook=unique
        )
        json.dumps(content, ensure_ascii=False).encode()  # halves of characters could not be written again
    except json.JSONDecodeError as failure:
        problem = f"is no JSON: {failure.msg[:1].lower()}{failure.msg[1:]}."
        raise error(f"{path}, line {failure.lineno}", problem, remedy) from failure
    except (ValueError, RecursionError) as failure:
        reason = "nested too deeply" if isinstance(failure, RecursionError) else failure
        raise error(path, f"is no JSON: {reason}.", remedy) from failure
    if not isinstance(content, dict):
        raise error(path, "holds no JSON object.", remedy)
    return content
