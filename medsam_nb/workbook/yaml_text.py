"""YAML that people write: read within limits, and every mistake named with its line."""

from pathlib import Path

import yaml

from medsam_nb.errors import StudyError, WorkbookError

MOST_BYTES = 1 << 20
MOST_VALUES = 20_000  # with every alias written out
LONGEST_NUMBER = 40  # characters
DEEPEST = 20  # lists and mappings inside one another
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def read_yaml(path: Path, *, error: type[WorkbookError] = StudyError) -> tuple[dict, yaml.Node]:
    """Return the mapping that a YAML file holds, and its tree, in which `locate` finds the lines.

    Raises
    ------
    error
        If the file cannot be read, is no UTF-8 text or larger than any study, or holds no mapping; see also
        `parse_yaml`.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as failure:  # a path with a NUL is a ValueError
        reason = getattr(failure, "strerror", None) or failure
        raise error(path, f"cannot be read ({reason}).", "Check the path and its rights.") from failure
    if len(data) > MOST_BYTES:
        raise error(path, f"is larger than {MOST_BYTES} bytes.", "Is this the right file?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        line = data[: failure.start].count(b"\n") + 1
        raise error(f"{path}, line {line}", "is no UTF-8 text.", "Save the file as UTF-8.") from failure
    content, tree = parse_yaml(text, path, error=error)
    if not isinstance(content, dict):
        raise error(path, "its outermost level is no mapping.", "Write lines such as `name: value`.")
    return content, tree


def parse_yaml(
    text: str, item: object, *, error: type[WorkbookError] = StudyError
) -> tuple[object, yaml.Node | None]:
    """Return content and tree of a text.

    Raises
    ------
    error
        With `item` and the line, if the text is no YAML, stands for too many values (aliases count with what
        they stand for), contains itself, or has a key twice in one mapping (YAML would keep the last).
    """
    too_deep = f"has more than {DEEPEST} lists or mappings inside one another."

    def refuse_keys(node: yaml.MappingNode) -> None:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise error(f"{item}, line {line}", "a key is a list or a mapping.", "Use a plain name.")
            if key.value in seen:
                problem = f"{key.value!r} stands here again (first in line {seen[key.value]})."
                raise error(f"{item}, line {line}", problem, "Keep one of the two.")
            seen[key.value] = line

    def measure(node: yaml.Node, sizes: dict[int, int], above: tuple[yaml.Node, ...]) -> int:
        where = f"{item}, line {node.start_mark.line + 1}"
        if any(node is outer for outer in above):
            raise error(where, "an alias stands inside what it stands for.", "Remove the alias.")
        if len(above) > DEEPEST:
            raise error(where, too_deep, "Write it more simply.")
        if node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
            raise error(where, f"a number of {len(node.value)} characters.", "Write a usual number.")
        if id(node) not in sizes:
            inner: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                refuse_keys(node)
                inner = [value for _, value in node.value]
            elif isinstance(node, yaml.SequenceNode):
                inner = node.value
            sizes[id(node)] = 1 + sum(measure(one, sizes, (*above, node)) for one in inner)
        if sizes[id(node)] > MOST_VALUES:
            raise error(where, f"stands for more than {MOST_VALUES} values.", "Write less.")
        return sizes[id(node)]

    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        if tree is not None:
            measure(tree, {}, ())
        return yaml.safe_load(text), tree
    except yaml.MarkedYAMLError as failure:
        line = failure.problem_mark.line + 1 if failure.problem_mark else 1
        raise error(f"{item}, line {line}", f"is no YAML: {failure.problem}.", "Mend the line.") from failure
    except (yaml.YAMLError, ValueError) as failure:  # control characters; numbers and dates that are none
        reason = " ".join(str(failure).split())[:200]
        raise error(item, f"is no YAML: {reason}.", "Remove what is named.") from failure
    except RecursionError as failure:
        raise error(item, too_deep, "Write it more simply.") from failure


def locate(tree: yaml.Node, location: tuple) -> tuple[int, str]:
    """Return the line of a place named by keys and indices (or of what is above it), and its dotted name."""
    node, line = tree, tree.start_mark.line + 1
    for part in location:
        found = None
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = (node.value[part], node.value[part])
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line, ".".join(map(str, location))
