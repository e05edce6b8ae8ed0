"""The manifest as others see it: a JSON schema for editors, and a table of what is ready.

Both are made from what the workbook itself reads, so they cannot say anything else.
"""

import json
import re
from typing import Any

from medsam_nb.manifest.label_maps import LabelMaps
from medsam_nb.manifest.rows import Checkpoint, DataSet, Manifest

# Groups of rows that the table of states counts instead of naming.
COUNTED = {"sample": "real samples", "example": "format examples, not measured"}
ATTRIBUTE = re.compile(r"(?P<names>\w+(?:, \w+)*) : (?P<text>.*(?:\n {4}.*)*)")


def schema() -> dict[str, Any]:
    """Return the schema; what an editor shows of a field is its line in the model's docstring."""
    found = Manifest.model_json_schema()
    for model in (DataSet, Checkpoint, LabelMaps):  # a row's name is its key; the loader puts it in
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


def state_table(manifest: Manifest) -> str:
    """Return every data set with its access and state, as a Markdown table.

    Rows of real samples are one line; "ready" is `DataSet.ready`.
    """
    lines = [
        "| data set | in the study | modality | | access | cases | licence | state |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in manifest.data_sets.items():
        if row.group not in COUNTED:
            cases = "?" if row.expected.cases is None else str(row.expected.cases)
            by_hand = ", by hand" if row.access == "open" and not row.files else ""
            cells = [f"`{name}`", row.paper_name or "", row.modality, f"{row.dimension}D"]
            cells += [row.access + by_hand, cases]
            lines.append(_line([*cells, row.licence, _state(row)]))
    for group, meaning in COUNTED.items():
        rows = [row for row in manifest.data_sets.values() if row.group == group]
        if rows:
            access = ", ".join(sorted({row.access for row in rows}))
            counted = f"{sum(row.ready for row in rows)} of {len(rows)} rows ready"
            cases = str(sum(row.expected.cases or 0 for row in rows))
            lines.append(
                _line([f"group `{group}`", "", meaning, "2D, 3D", access, cases, "see the manifest", counted])
            )
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |".replace("|  |", "| |")


def _state(row: DataSet) -> str:
    """Return "ready", or why not, and how many facts and downloads of the row nothing vouches for."""
    parts = ["ready" if row.ready else "layout unverified"]
    parts += [f"unverified facts: {len(row.unverified)}"] if row.unverified else []
    unproven = sum(file.sha256 is None for file in row.files)
    parts += [f"unverified downloads: {unproven}"] if unproven else []
    return "; ".join(parts)
