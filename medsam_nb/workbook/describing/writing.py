"""A row of the manifest as YAML text, with comments."""

import json
import re
from collections.abc import Sequence
from types import NoneType

import yaml

from medsam_nb.errors import printable

SHORT = 90  # characters of a line of flow YAML


def row_as_yaml(
    name: str,
    fields: dict,
    comments: dict[str, str],
    said: Sequence[str],
) -> str:
    """Return a manifest with one row as YAML.

    Parameters
    ----------
    name : str
    fields : dict
        Of the row.
    comments : dict of str to str
        What is said of a field, or of an object ("objects.NAME").
    said : sequence of str
        Comments above the row.
    """
    text = "".join(f"# {plain(line)}\n" for line in said) + f"data_sets:\n  {_key(name)}:\n"
    for key, value in fields.items():
        if key == "objects":
            text += "    objects:\n"
            for one, labels in value.items():
                text += _line(f"      {_key(one)}: {labels}", comments.get(f"objects.{one}", ""))
        elif isinstance(value, dict) and len(_flow(value)) > SHORT:
            text += f"    {key}:\n" + "".join(_entry(one, inner) for one, inner in value.items())
        else:
            text += _line(f"    {key}: {_flow(value)}", comments.get(key, ""))
    return text


def _entry(key: str, value: object) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f"      {key}:\n" + "".join(f"        - {_flow(one)}\n" for one in value)
    return f"      {_key(key)}: {_flow(value)}\n"


def _flow(value: object) -> str:
    """Return a value as YAML on one line: JSON, but for plain keys and one-word texts."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)}: {_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _key(value) if isinstance(value, str) else json.dumps(value)


def _key(text: str) -> str:
    """Return a text as it may stand in YAML: in quotes unless it is a word that means itself."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z_]+\w*", text) and not isinstance(
        yaml.safe_load(text), bool | NoneType
    )
    return text if plain else json.dumps(text, ensure_ascii=False)


def _line(text: str, comment: str) -> str:
    return f"{text}  # {plain(comment)}\n" if comment else f"{text}\n"


def plain(text: str) -> str:
    return printable(" ".join(text.split()))
