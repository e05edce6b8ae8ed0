"""YAML that people write: read within limits, and every mistake named with its line."""

from pathlib import Path

import yaml

from medsam_nb.errors import StudyError

MOST_BYTES = 1 << 20
MOST_VALUES = 20_000  # with every alias written out
LONGEST_NUMBER = 40  # characters
DEEPEST = 20  # lists and mappings inside one another

NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def read_yaml(path: Path) -> tuple[object, yaml.Node | None]:
    """Return the content of a YAML file, and its tree, in which `line_of` finds the lines.

    Raises
    ------
    StudyError
        If the file is missing, is no UTF-8 text or no YAML, is larger than any study (aliases count with
        what they stand for), contains itself, or has a key twice in one mapping (YAML would keep the last).
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise StudyError(path, "there is no such file.", "Give the path of a file that exists.") from error
    except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise StudyError(path, f"cannot be read: {reason}.", "Check the path and its rights.") from error
    if len(data) > MOST_BYTES:
        raise StudyError(path, f"is larger than {MOST_BYTES} bytes.", "Is this the right file?")
    try:
        return parse_yaml(data.decode("utf-8-sig"), path)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise StudyError(f"{path}, line {line}", "is not UTF-8 text.", "Save the file as UTF-8.") from error


def parse_yaml(text: str, item: object) -> tuple[object, yaml.Node | None]:
    """Return content and tree of a text; `item` is what an error names. See `read_yaml`."""
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        if tree is not None:
            _measure(item, tree, {}, ())
        return yaml.safe_load(text), tree
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise StudyError(
            f"{item}, line {line}", f"is not YAML: {error.problem}.", "Mend the line that is named."
        ) from error
    except (yaml.YAMLError, ValueError) as error:  # control characters; numbers and dates that are none
        reason = " ".join(str(error).split())[:200]
        raise StudyError(item, f"is not YAML: {reason}.", "Remove what is named.") from error
    except RecursionError as error:
        raise _too_deep(item) from error


def _too_deep(item: object) -> StudyError:
    return StudyError(
        item, f"has more than {DEEPEST} lists or mappings inside one another.", "Write it more simply."
    )


def _measure(item: object, node: yaml.Node, sizes: dict[int, int], above: tuple[yaml.Node, ...]) -> int:
    """Return how many values a node stands for; raise where they are too many, too deep, or never end."""
    where = f"{item}, line {node.start_mark.line + 1}"
    if any(node is outer for outer in above):
        raise StudyError(where, "an alias stands inside what it stands for.", "Remove the alias.")
    if len(above) > DEEPEST:
        raise _too_deep(where)
    if node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
        raise StudyError(where, f"a number of {len(node.value)} characters.", "Write a usual number.")
    if id(node) not in sizes:
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            _refuse_keys(item, node)
            inner = [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        sizes[id(node)] = 1 + sum(_measure(item, one, sizes, (*above, node)) for one in inner)
    if sizes[id(node)] > MOST_VALUES:
        raise StudyError(
            where, f"stands for more than {MOST_VALUES} values.", "Write less, or fewer aliases."
        )
    return sizes[id(node)]


def _refuse_keys(item: object, node: yaml.MappingNode) -> None:
    seen: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise StudyError(f"{item}, line {line}", "a key is a list or a mapping.", "Use a plain name.")
        if key.value in seen:
            raise StudyError(
                f"{item}, line {line}",
                f"{key.value!r} stands here again (first in line {seen[key.value]}).",
                "Keep one of the two.",
            )
        seen[key.value] = line


def line_of(tree: yaml.Node | None, location: tuple) -> int:
    """Return the line of a place in a tree, named by keys and indices, or of what is nearest above it."""
    line = 1 if tree is None else tree.start_mark.line + 1
    for part in location:
        found = None
        if isinstance(tree, yaml.MappingNode):
            found = next(((key, value) for key, value in tree.value if key.value == str(part)), None)
        elif isinstance(tree, yaml.SequenceNode) and isinstance(part, int) and part < len(tree.value):
            found = (tree.value[part], tree.value[part])
        if found is None:
            break
        line, tree = found[0].start_mark.line + 1, found[1]
    return line
