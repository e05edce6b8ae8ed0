"""The experimental grid of 3D prompting: which slice, which prompt, which direction, which mask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from medsam_nb.errors import StudyError, require_known
from medsam_nb.protocol.prompts import PROMPTS_3D

DESIGN_FACTORS = ("frame_choice", "prompt", "direction", "mask_choice")  # columns of the tidy table
FRAME_CHOICES = ("first_slice", "centre_slice", "largest_slice", "three_slices")
DIRECTIONS = ("front_to_end", "bidirectional")
# The oracles choose by the ground truth. Of a prompt of several calls (a box per component) "oracle_mask" is
# the best of all unions of one candidate per call, an upper bound of every choice; "oracle_channel" is the
# best union of candidates of one number, the rule of SAM's published tables. Of a single call both are its
# best candidate.
ORACLES_2D = ("oracle_mask", "oracle_channel")
MASK_CHOICES_2D = ("first_mask", "most_confident_mask", *ORACLES_2D)
MASK_CHOICES_3D = ("first_mask", "most_confident_mask")
LEVELS = dict(zip(DESIGN_FACTORS, (FRAME_CHOICES, PROMPTS_3D, DIRECTIONS, MASK_CHOICES_3D), strict=True))


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
        for factor, known in LEVELS.items():
            require_known("design", getattr(self, factor), known, what=factor.replace("_", " "))

    @property
    def name(self) -> str:
        """The four parts, joined by "/": what `parse_design` reads."""
        return "/".join(getattr(self, factor) for factor in DESIGN_FACTORS)


ALL_DESIGNS = tuple(Design(*cell) for cell in product(*LEVELS.values()))

# The paper's first version has 24 designs: 3 frame choices x 2 prompts x 2 directions x 2 mask
# choices. Which three and which two it does not say in what is at hand; these are assumed.
PAPER_V1_DESIGNS = tuple(
    design
    for design in ALL_DESIGNS
    if design.frame_choice != "three_slices" and design.prompt in ("one_point", "one_box")
)
DESIGN_SETS = {"all": ALL_DESIGNS, "paper_v1": PAPER_V1_DESIGNS}


def parse_design(name: str) -> Design:
    """Return the design of a name such as "centre_slice/one_box/bidirectional/first_mask".

    Raises
    ------
    StudyError
        If the name has not four parts, or a part is unknown.
    """
    parts = name.split("/")
    if len(parts) != len(DESIGN_FACTORS):
        raise StudyError("design", f"{name!r} is no design.", f"Write {'/'.join(DESIGN_FACTORS)}.")
    return Design(*parts)


def chosen_designs(choice: str | Sequence[str] | Mapping[str, str | Sequence[str]]) -> tuple[Design, ...]:
    """Return the designs that a study asks for, in the order of the grid.

    Parameters
    ----------
    choice : str, sequence of str, or mapping
        The name of a set ("all", "paper_v1") or of a design; names of designs; or the wanted levels of
        some factors, such as ``{"prompt": "one_box", "frame_choice": ["first_slice", "centre_slice"]}``.

    Raises
    ------
    StudyError
        If a name is unknown; the message suggests the nearest known one.

    Examples
    --------
    >>> len(chosen_designs("all")), len(chosen_designs({"prompt": "one_box", "direction": "bidirectional"}))
    (64, 8)
    """
    if isinstance(choice, str) and "/" not in choice:
        require_known("designs", choice, DESIGN_SETS, what="set of designs")
        return DESIGN_SETS[choice]
    if isinstance(choice, Mapping):
        wanted = {}
        for factor, levels in choice.items():
            require_known("designs", factor, DESIGN_FACTORS, what="factor of a design")
            wanted[factor] = [levels] if isinstance(levels, str) else list(levels)
            for level in wanted[factor]:
                require_known("designs", level, LEVELS[factor], what=factor.replace("_", " "))
        return tuple(d for d in ALL_DESIGNS if all(getattr(d, f) in w for f, w in wanted.items()))
    named = {parse_design(name) for name in ([choice] if isinstance(choice, str) else choice)}
    if not named:
        raise StudyError("designs", "none is named.", "Write all, paper_v1, or names of designs.")
    return tuple(design for design in ALL_DESIGNS if design in named)


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
