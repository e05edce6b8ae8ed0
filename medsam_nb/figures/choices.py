"""What a lab may choose of its figures: names, colours, order, size, font, and which designs they show.

A study says it in its field `style`. It becomes a file of the run (`keep`), which every notebook of the run
takes up (`take_up`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from medsam_nb.errors import InputError, StudyError, require_known
from medsam_nb.files import write_study_file
from medsam_nb.protocol.designs import chosen_designs
from medsam_nb.protocol.prompts import PROMPTS_2D

FILE = "style.json"
ALL = "all"
Colour = Annotated[str, Field(pattern=r"^#[0-9A-Fa-f]{6}$")]
Designs = str | list[str] | dict[str, str | list[str]]


@contextmanager
def _as_finding() -> Iterator[None]:
    """Let pydantic report an unknown name with the field that it stands in: it takes up ValueErrors only."""
    try:
        yield
    except StudyError as error:
        raise ValueError(f"{error.problem} {error.remedy}") from error


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
    designs : str, list of str, or dict
        3D designs that figures of designs show, as a study chooses designs (`designs.chosen_designs`).
    prompts : list of str
        2D prompts that figures of prompts show; a study may also write one name, or "all".
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
    designs: Designs = ALL
    prompts: list[str] = Field([*PROMPTS_2D], min_length=1)
    column_mm: float = Field(88, ge=40, le=400)
    page_mm: float = Field(180, ge=60, le=400)
    font: str = "DejaVu Sans"  # comes with matplotlib, so figures are alike everywhere
    font_size: float = Field(7, ge=4, le=24)
    decimal: Literal[".", ","] = "."

    @field_validator("designs")
    @classmethod
    def _known_designs(cls, wanted: Designs) -> Designs:
        with _as_finding():
            found = chosen_designs(wanted)
        if not found:
            raise ValueError("leaves no design; name at least one level of each factor")
        return wanted

    @field_validator("prompts", mode="before")
    @classmethod
    def _listed(cls, wanted: object) -> object:
        return [*PROMPTS_2D] if wanted == ALL else [wanted] if isinstance(wanted, str) else wanted

    @field_validator("prompts")
    @classmethod
    def _known_prompts(cls, wanted: list[str]) -> list[str]:
        for name in wanted:
            with _as_finding():
                require_known("prompts", name, PROMPTS_2D, what="prompt in 2D")
        return wanted


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


def with_names(choices: Choices, names: Mapping[str, str]) -> Choices:
    """Return choices in which names that they do not give are those of a manifest's rows."""
    return choices.model_copy(update={"names": {**names, **choices.names}})


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
