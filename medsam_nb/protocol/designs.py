"""The experimental grid of 3D prompting: which slice, which prompt, which direction, which mask."""

from dataclasses import dataclass
from itertools import product

import numpy as np

from medsam_nb.protocol.prompts import KINDS_3D

FRAME_CHOICES = ("first_slice", "centre_slice", "largest_slice", "three_slices")
DIRECTIONS = ("front_to_end", "bidirectional")
MASK_CHOICES_2D = ("first", "most_confident", "oracle")
MASK_CHOICES_3D = ("first_mask", "most_confident_mask")
MASK_SCOPES = ("all", "prompted", "all_with_boxes")
PROTOCOLS = ("corrected", "released")


@dataclass(frozen=True, order=True)
class Design:
    """One cell of the grid.

    Attributes
    ----------
    frame_choice : {"first_slice", "centre_slice", "largest_slice", "three_slices"}
        Prompted slices, chosen among those that hold the object.
    prompt : {"one_point", "point_per_component", "one_box", "mask"}
    direction : {"front_to_end", "bidirectional"}
        From slice 0 to the last; or from the prompted slice (the middle one of three) to both ends.
    mask_choice : {"first_mask", "most_confident_mask"}
        Which of the model's candidate masks is kept, and remembered, on a slice.
    """

    frame_choice: str
    prompt: str
    direction: str
    mask_choice: str

    def __post_init__(self) -> None:
        for value, known in (
            (self.frame_choice, FRAME_CHOICES),
            (self.prompt, KINDS_3D),
            (self.direction, DIRECTIONS),
            (self.mask_choice, MASK_CHOICES_3D),
        ):
            if value not in known:
                raise ValueError(f"{value!r} is not a part of a design; known: {', '.join(known)}")

    @property
    def name(self) -> str:
        return "/".join((self.frame_choice, self.prompt, self.direction, self.mask_choice))


ALL_DESIGNS = tuple(Design(*cell) for cell in product(FRAME_CHOICES, KINDS_3D, DIRECTIONS, MASK_CHOICES_3D))

# The paper's first version has 24 designs: 3 frame choices x 2 prompts x 2 directions x 2 mask
# choices. Which three and which two it does not say in what is at hand; these are assumed.
PAPER_V1_DESIGNS = tuple(
    design
    for design in ALL_DESIGNS
    if design.frame_choice != "three_slices" and design.prompt in ("one_point", "one_box")
)
DESIGN_SETS = {"all": ALL_DESIGNS, "paper_v1": PAPER_V1_DESIGNS}


def prompted_slices(areas: np.ndarray, frame_choice: str, protocol: str = "corrected") -> tuple[int, ...]:
    """Return the slices that are prompted, in ascending order.

    Parameters
    ----------
    areas : ndarray, shape (z,)
        Pixels of the object on every slice; at least one is positive.
    frame_choice : str
        See `Design`. The centre is element n // 2 of the n non-empty slices; the largest is the
        first of the greatest area.
    protocol : {"corrected", "released"}
        Three slices lie at a quarter, half and three quarters of the non-empty ones
        ("corrected", rounding halves up, fewer where they coincide). "released" takes every
        (n // 4)-th non-empty slice and of these the second to fourth (the first three where there
        are four or fewer), as the authors' scripts do: not always evenly spaced.

    Examples
    --------
    >>> areas = np.array([0, 1, 2, 5, 2, 1, 1, 1, 1, 0])
    >>> prompted_slices(areas, "centre_slice"), prompted_slices(areas, "largest_slice")
    ((5,), (3,))
    >>> prompted_slices(areas, "three_slices"), prompted_slices(areas, "three_slices", "released")
    ((3, 5, 7), (1, 3, 5))
    """
    filled = np.flatnonzero(np.asarray(areas) > 0)
    count = len(filled)
    if count == 0:
        raise ValueError("an object without a voxel has no slice to prompt")
    if frame_choice == "first_slice":
        chosen = [filled[0]]
    elif frame_choice == "centre_slice":
        chosen = [filled[count // 2]]
    elif frame_choice == "largest_slice":
        chosen = [int(np.argmax(areas))]
    elif frame_choice == "three_slices" and protocol == "corrected":
        chosen = filled[[min(int(k * count / 4 + 0.5), count - 1) for k in (1, 2, 3)]]
    elif frame_choice == "three_slices" and protocol == "released":
        stepped = filled[:: max(1, count // 4)]
        chosen = stepped[1:4] if len(stepped) > 4 else stepped[:3]
    else:
        raise ValueError(f"unknown frame choice or protocol: {frame_choice!r}, {protocol!r}")
    return tuple(sorted({int(index) for index in chosen}))


def start_slice(prompted: tuple[int, ...]) -> int:
    """Return the slice where bidirectional propagation turns: the middle one of those prompted."""
    return prompted[len(prompted) // 2]
