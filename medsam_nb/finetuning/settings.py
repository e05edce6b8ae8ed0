"""What decides a fine-tuning besides its data: what learns, for how long, how fast, with which seed."""

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Learns = Literal["mask_decoder", "memory", "lora"]
LEARNS: tuple[str, ...] = get_args(Learns)


class Settings(BaseModel):
    """How a network is fine-tuned.

    Attributes
    ----------
    learns : {"mask_decoder", "memory", "lora"}
        The mask decoder alone, by single slices; the memory modules with it, by sequences of slices; or
        low-rank adapters (LoRA, Hu et al. 2022) in the image encoder with it, by single slices.
    slices : int
        Shown in all; the budget that is the same whatever learns. 0 leaves every weight as it is.
    learning_rate : float
        Of AdamW, with a warm-up over a tenth of the steps and a linear decay to zero.
    images : int
        Slices of a step on single slices.
    sequence : int
        Slices of a step on a sequence.
    rank : int
        Of the adapters.
    seed : int
        Of order, prompts and adapters.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    learns: Learns = "mask_decoder"
    slices: int = Field(default=200, ge=0)
    learning_rate: float = Field(default=1e-4, gt=0)
    images: int = Field(default=2, ge=1)
    sequence: int = Field(default=4, ge=2)
    rank: int = Field(default=4, ge=1)
    seed: int = Field(default=0, ge=0)

    @property
    def slices_per_step(self) -> int:
        """How many slices a step shows."""
        return self.sequence if self.learns == "memory" else self.images

    @property
    def steps(self) -> int:
        """How many steps the budget of slices is.

        Examples
        --------
        >>> [Settings(learns=learns, slices=48).steps for learns in ("mask_decoder", "memory")]
        [24, 12]
        """
        return self.slices // self.slices_per_step

    def rate(self, step: int) -> float:
        """Return the learning rate of a step (from 0)."""
        warm = max(1, self.steps // 10)
        return self.learning_rate * min(1.0, (step + 1) / warm) * (1 - step / self.steps)
