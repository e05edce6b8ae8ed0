"""Rows of masks from elsewhere: a folder of label maps of any program, or of a second reader."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from medsam_nb.manifest.layouts import Row
from medsam_nb.manifest.paths import FoundPath, Name

PLACEHOLDERS = ("data_set", "case")


def _names_a_case(pattern: str) -> str:
    """Refuse a pattern that cannot tell cases apart, or holds what looks like a placeholder and is none."""
    unknown = sorted(set(re.findall(r"\{(\w*)\}", pattern)) - set(PLACEHOLDERS))
    if unknown:
        raise ValueError(f"{{{unknown[0]}}} is no placeholder; known: {{data_set}}, {{case}}")
    if "{case}" not in pattern:
        raise ValueError(f"{pattern!r} does not say where {{case}} stands")
    return pattern


class LabelMaps(Row):
    """Label maps that were made elsewhere and are scored like the masks of a model.

    Attributes
    ----------
    name : key of the row; the model's name in tables and figures.
    files : where they lie, below the workbook's folder, with `{data_set}` and `{case}` as tables name them.
    data_sets : that they were made for; empty for all that a study evaluates.
    objects : label values of each object in these files, where they are not those of the data set.
    made_by : a program, which may have been trained on the images, or a reader.
    """

    name: str = ""
    title: Annotated[str, Field(pattern=r"\S")]
    files: Annotated[FoundPath, AfterValidator(_names_a_case)]
    data_sets: list[Name] = []
    objects: dict[Name, Annotated[list[Annotated[int, Field(ge=1, le=65535)]], Field(min_length=1)]] = {}
    made_by: Literal["program", "reader"] = "program"

    def path(self, root: Path, data_set: str, case_id: str) -> Path:
        """Return where the label map of a case must lie."""
        return Path(root) / self.files.replace("{data_set}", data_set).replace("{case}", case_id)

    def covers(self, data_set: str) -> bool:
        """Whether there are label maps of a data set."""
        return not self.data_sets or data_set in self.data_sets
