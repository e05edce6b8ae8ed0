"""The manifest's JSON schema, with which editors check and complete a manifest while it is written.

It is made from the models that read the manifest, so it cannot say anything else than they do.
"""

import json
import re
from typing import Any

from medsam_nb.manifest import Checkpoint, DataSet, Manifest

ATTRIBUTE = re.compile(r"(?P<names>\w+(?:, \w+)*) : (?P<text>.*(?:\n {4}.*)*)")


def schema() -> dict[str, Any]:
    """Return the schema; what an editor shows of a field is its line in the model's docstring."""
    found = Manifest.model_json_schema()
    for model in (DataSet, Checkpoint):  # a row's name is its key; the loader puts it in
        del found["$defs"][model.__name__]["properties"]["name"]
    for part in (found, *found["$defs"].values()):
        _describe(part)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | found


def _describe(part: dict[str, Any]) -> None:
    """Move the lines about attributes from a model's docstring to its properties."""
    summary, _, attributes = part.get("description", "").partition("\n\nAttributes\n----------\n")
    if summary:
        part["description"] = " ".join(summary.split())
    for match in ATTRIBUTE.finditer(attributes):
        for name in match["names"].split(", "):
            if name in part["properties"]:
                part["properties"][name]["description"] = " ".join(match["text"].split())


def schema_text() -> str:
    """Return the schema as it is shipped in `data_manifest.schema.json`."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
