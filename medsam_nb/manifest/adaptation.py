"""What the row of a fine-tuned checkpoint says of its making: parent, patients, settings."""

from typing import Annotated, Literal

from pydantic import Field

from medsam_nb.manifest.layouts import Row
from medsam_nb.manifest.paths import Name

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Patient = Annotated[tuple[Name, Annotated[str, Field(min_length=1)]], Field(strict=False)]


class FineTuning(Row):
    """How a checkpoint was fine-tuned, and on whom; written by the program.

    Attributes
    ----------
    parent : the row of the checkpoint that it began with.
    parent_sha256 : of the parent's file.
    patients : whom it was trained on, each as [data set, patient]; it is never measured on them.
    cases_sha256 : hashes of the prepared cases that it was trained on.
    objects : names of the objects that it was trained on.
    learns : what was trained: the mask decoder; with it the memory modules, or adapters in the encoder.
    steps : of the optimiser.
    slices : that were shown in these steps.
    learning_rate : at its highest.
    rank : of the adapters.
    seed : of order, prompts and adapters.
    split : in words, how the patients were chosen.
    code_sha256 : of the code that trained it.
    """

    parent: Name
    parent_sha256: str
    patients: tuple[Patient, ...] = Field(strict=False)
    cases_sha256: tuple[Sha256, ...] = Field(strict=False)
    objects: tuple[Name, ...] = Field(strict=False)
    learns: Literal["mask_decoder", "memory", "lora"]
    steps: int = Field(ge=0)
    slices: int = Field(ge=0)
    learning_rate: float = Field(ge=0)
    rank: int = Field(default=4, ge=1)
    seed: int = Field(ge=0)
    split: str = ""
    code_sha256: Sha256

    @property
    def data_sets(self) -> tuple[str, ...]:
        """Whose patients it was trained on."""
        return tuple(dict.fromkeys(data_set for data_set, _ in self.patients))
