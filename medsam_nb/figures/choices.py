"""What a lab may choose of its figures: names, colours, order, size, font.

A study says it in its field `style`. It becomes a file of the run (`keep`), which every notebook of the run
takes up (`take_up`).
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medsam_nb.errors import InputError
from medsam_nb.files import write_study_file

FILE = "style.json"
Colour = Annotated[str, Field(pattern=r"^#[0-9A-Fa-f]{6}$")]


class Order(BaseModel):
    """In which order data sets and models stand in figures and tables.

    Attributes
    ----------
    data_sets : "modality", "given" or list of str
        Grouped by modality (`order.GROUPS`), as the study lists them, or as listed here; names that a list
        leaves out follow by modality.
    models : list of str
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data_sets: Literal["modality", "given"] | list[str] = "modality"
    models: list[str] = []


class Choices(BaseModel):
    """The content of a study's field `style`.

    Attributes
    ----------
    names : dict of str to str
        What a data set, model, prompt or any other name is called.
    colours : dict of str to str
        Of models, prompts, directions and data sets, as "#0072B2".
    order : Order
    column_mm, page_mm : float
        Widths of one and of two columns.
    font : str
    font_size : float
        Points.
    decimal : "." or ","
        On axes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: dict[str, str] = {}
    colours: dict[str, Colour] = {}
    order: Order = Order()
    column_mm: float = Field(88, ge=40, le=400)
    page_mm: float = Field(180, ge=60, le=400)
    font: str = "DejaVu Sans"  # comes with matplotlib, so figures are alike everywhere
    font_size: float = Field(7, ge=4, le=24)
    decimal: Literal[".", ","] = "."


DEFAULT = Choices()
_active: ContextVar[Choices | None] = ContextVar("choices", default=None)


def chosen() -> Choices:
    """Return the choices that hold now."""
    return _active.get() or DEFAULT


def take_up(choices: Choices) -> None:
    """Let choices hold from now on."""
    _active.set(choices)


@contextmanager
def holding(choices: Choices) -> Iterator[None]:
    """Let choices hold while the block runs."""
    before = _active.set(choices)
    try:
        yield
    finally:
        _active.reset(before)


def keep(choices: Choices, run_dir: Path, given: Sequence[str] = ()) -> Path:
    """Write the choices of a run; `given` are its data sets in the study's order. Return the file's path."""
    if choices.order.data_sets == "given":
        order = choices.order.model_copy(update={"data_sets": list(given)})
        choices = choices.model_copy(update={"order": order})
    path = Path(run_dir) / FILE
    write_study_file(path, json.dumps(choices.model_dump(), indent=1).encode())
    return path


def kept(run_dir: Path) -> Choices:
    """Return the choices of a run; the defaults if it has none.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    path = Path(run_dir) / FILE
    if not path.is_file():
        return Choices()
    try:
        return Choices.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(
            path, f"is no style ({error.errors()[0]['msg']}).", "Run the study again."
        ) from error


class Colours(dict[str, str]):
    """Colours by name, where a study's own come first."""

    def __getitem__(self, name: str) -> str:
        """Return the colour of a name."""
        return chosen().colours.get(name) or super().__getitem__(name)

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the colour of a name, or the default."""
        return self[name] if name in self or name in chosen().colours else default

    def items(self) -> list[tuple[str, str]]:
        """Return names and colours."""
        return [(name, self[name]) for name in self]
