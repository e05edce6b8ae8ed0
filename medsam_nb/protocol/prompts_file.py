"""Prompts as a file: JSON lines that hand, simulation and replay all write and read.

One line per point, box or mask. Each says which image it was given on (hashes), where (pixels of the
prepared image and millimetres of the scanner), and by whom and when. Pixels are taken where the case is the
very one; on the same image in another slicing they follow from the millimetres, so a prompt stays on its
voxel.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medsam_nb.errors import InputError
from medsam_nb.files import write_atomically
from medsam_nb.protocol.prompts import Prompt
from medsam_nb.protocol.volume import Volume, reoriented
from medsam_nb.provenance import package_versions

FORMAT = "medsam-nb prompts 1"
MASK_PIXELS = ((0, 0), (1, 0), (0, 1))  # x, y of those whose places in mm say how a mask lies
WHOLE = 1e-4  # pixels: what is nearer to a whole number is that number, which rounding in mm has moved


class Prompted(Protocol):
    """What prompts are given on: a `volume.Case`, or an image without a truth."""

    data_set: str
    case_id: str
    image: Volume

    def sha256(self) -> str: ...


class PromptLine(BaseModel):
    """One point, box or mask, given on one slice of one object of one case.

    Attributes
    ----------
    format : str
        Of this file.
    data_set, case_id : str
    data_sha256 : str
        Of the prepared case: voxels, grid, objects and grey levels.
    image_sha256 : str
        Of voxels and grid, whatever the order in which they are stored.
    object : str
    slice_index : int
        Of the prepared image, from 0.
    slice_mm : float
        Where the slice lies along its normal, millimetres from the scanner's origin.
    kind : {"point", "box", "mask"}
    pixels : list of float
        Of the prepared image: x, y of a point; x0, y0, x1, y1 of a box (last column and row included);
        width, height of a mask.
    ras_mm : list of [x, y, z]
        In millimetres of the scanner, to the patient's right, front and head: the same point; the two
        corners of a box; the pixels (0, 0), (1, 0) and (0, 1) of a mask.
    label : int
        1 in the object (positive), 0 outside (negative).
    runs : list of int
        Of a mask: lengths of runs of pixels outside and inside by turns, row by row, outside first.
    order : int
        When it was given, within its file; from 0.
    author : str
    time : str
        ISO 8601, with a time zone.
    tool_version : str
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["medsam-nb prompts 1"] = FORMAT
    data_set: str
    case_id: str
    data_sha256: str
    image_sha256: str
    object: str
    slice_index: int = Field(ge=0)
    slice_mm: float
    kind: Literal["point", "box", "mask"]
    pixels: list[float]
    ras_mm: list[list[float]]
    label: Literal[0, 1] = 1
    runs: list[int] = []
    order: int = Field(ge=0)
    author: str = ""
    time: str = ""
    tool_version: str = ""

    @model_validator(mode="after")
    def _counts(self) -> "PromptLine":
        """Check that there are as many numbers as the kind has."""
        numbers, places = {"point": (2, 1), "box": (4, 2), "mask": (2, 3)}[self.kind]
        if len(self.pixels) != numbers or len(self.ras_mm) != places or {3} != {len(p) for p in self.ras_mm}:
            raise ValueError(f"a {self.kind} has {numbers} pixels and {places} places of 3 mm each")
        if self.kind == "mask" and sum(self.runs) != self.pixels[0] * self.pixels[1]:
            raise ValueError("the runs do not fill the mask's width and height")
        if self.kind != "point" and self.label != 1:
            raise ValueError("only a point can be negative")
        return self

    @property
    def where(self) -> str:
        """How a message names the line."""
        return f"{self.kind} {self.order} of {self.object}, slice {self.slice_index}"


def image_sha256(image: Volume) -> str:
    """Return the hash of voxels and grid, the same in every order and direction of the axes."""
    standard = reoriented(image, "RAS")
    digest = hashlib.sha256(str(standard.array.shape).encode())
    digest.update((standard.affine.round(3) + 0.0).tobytes())  # + 0.0: no negative zero
    digest.update(np.ascontiguousarray(standard.array, np.float32).tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=2)
def hashes(case: Prompted) -> tuple[str, str]:
    """Return the hashes of a case and of its image, as lines have them."""
    return case.sha256(), image_sha256(case.image)


def to_mm(image: Volume, slice_index: int, x: float, y: float) -> list[float]:
    """Return where a pixel of a slice lies, millimetres RAS."""
    return [float(v) for v in (image.affine @ [slice_index, y, x, 1.0])[:3]]


def slice_position_mm(image: Volume, slice_index: int) -> float:
    """Return where a slice lies along its normal, which points to growing slice numbers."""
    along, rows, columns = image.affine[:3, :3].T
    normal = np.cross(rows, columns)
    normal *= np.sign(normal @ along) / np.linalg.norm(normal)
    return float(normal @ np.array(to_mm(image, slice_index, 0, 0)))


def _runs(mask: np.ndarray) -> list[int]:
    flat = np.concatenate([[False], mask.ravel(), [not mask.ravel()[-1]]])
    edges = np.flatnonzero(np.diff(flat.astype(np.int8)))
    return np.diff(np.concatenate([[0], edges])).tolist()


def from_runs(runs: Sequence[int], width: int, height: int) -> np.ndarray:
    """Return the mask of a line, bool (y, x), from the lengths of its runs, outside first."""
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(height, width)


def lines_of(
    case: Prompted,
    object_name: str,
    slice_index: int,
    prompt: Prompt,
    *,
    author: str = "",
    time: str | None = None,
    order: int = 0,
) -> list[PromptLine]:
    """Return a prompt as lines of the file: a mask, or a box and the points, in this order.

    Parameters
    ----------
    case : Case, or an image without a truth
    object_name : str
    slice_index : int
    prompt : Prompt
    author : str
    time : str, optional
        ISO 8601; now, if not given.
    order : int
        Of the first line; the others follow.
    """
    data, image = hashes(case)
    common = {
        "data_set": case.data_set, "case_id": case.case_id, "data_sha256": data, "image_sha256": image,
        "object": object_name, "slice_index": int(slice_index), "author": author,
        "slice_mm": slice_position_mm(case.image, slice_index),
        "time": time or datetime.now(UTC).isoformat(timespec="seconds"),
        "tool_version": package_versions(["medsam-nb"])["medsam-nb"],
    }  # fmt: skip
    parts: list[dict[str, Any]] = []
    if prompt.mask is not None:
        height, width = prompt.mask.shape
        mask = {"kind": "mask", "pixels": [width, height], "runs": _runs(prompt.mask)}
        parts.append(mask | {"at": MASK_PIXELS})
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box
        parts.append({"kind": "box", "pixels": [x0, y0, x1, y1], "at": [(x0, y0), (x1, y1)]})
    for (x, y), positive in zip(prompt.points, prompt.point_labels, strict=True):
        parts.append({"kind": "point", "pixels": [x, y], "at": [(x, y)], "label": positive})
    return [
        PromptLine(
            **common,
            ras_mm=[to_mm(case.image, slice_index, x, y) for x, y in part.pop("at")],
            order=order + number,
            **part,
        )
        for number, part in enumerate(parts)
    ]


def write_prompts(path: Path, lines: Iterable[PromptLine]) -> None:
    """Write lines as a file, all of it or nothing."""
    text = "".join(f"{line.model_dump_json()}\n" for line in lines)
    write_atomically(Path(path), text.encode())


def read_prompts(path: Path) -> list[PromptLine]:
    """Read a file of prompts, in the order in which they were given.

    Raises
    ------
    InputError
        If the file is not there or a line is not what the schema says; the message has its number.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"cannot be read ({error}).", "Give a file of prompts.") from error
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            lines.append(PromptLine.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "the line"
            raise InputError(
                f"{path}, line {number}",
                f"{field}: {first['msg']}.",
                "Correct it; `medsam_nb.protocol.prompts_file.schema` describes the fields.",
            ) from error
    return sorted(lines, key=lambda line: line.order)


def schema() -> dict[str, Any]:
    """Return the JSON schema of a line."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | PromptLine.model_json_schema()


def schema_text() -> str:
    """Return the schema as it is shipped in `data_prompts.schema.json`."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
