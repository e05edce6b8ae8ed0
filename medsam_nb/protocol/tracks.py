"""What a 3D run has to predict: for every design of an object, which slices, from which prompts.

`propagation.sweep` and `reference.sweep` both take a plan from here and return `SliceMask`; they differ
in how often they do the same work, not in what they predict.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medsam_nb.errors import require_known
from medsam_nb.protocol.designs import Design, prompted_slices, start_slice
from medsam_nb.protocol.options import ENDS


@dataclass(frozen=True, eq=False)
class SliceMask:
    """One predicted slice.

    Attributes
    ----------
    object_name : str
    designs : tuple of Design
        All designs that share this prediction.
    slice_index : int
    logits : ndarray of float32, shape (y, x)
        At the resolution of the slice; positive inside.
    score : float
        The model's own estimate of the IoU of the candidate it kept; NaN where the prompt was a
        mask, which the model returns without estimating anything.
    prompted : bool
        Whether a prompt was given on this slice.
    """

    object_name: str
    designs: tuple[Design, ...]
    slice_index: int
    logits: np.ndarray
    score: float
    prompted: bool

    @property
    def mask(self) -> np.ndarray:
        """The predicted mask, bool, shape (y, x)."""
        return self.logits > 0


@dataclass(frozen=True)
class Pass:
    """One run along the volume: from slice `first` to slice `last`, both included."""

    first: int
    last: int

    reverse: bool

    @property
    def slices(self) -> range:
        """The slices in the order of the run."""
        return range(self.first, self.last - 1, -1) if self.reverse else range(self.first, self.last + 1)


@dataclass(frozen=True, eq=False)
class Track:
    """A design applied to one object.

    Attributes
    ----------
    object_name : str
    design : Design
    prompted : tuple of int
        Prompted slices, ascending.
    passes : tuple of Pass
        Each starts from the prompts alone; together they visit every wanted slice once.
    wanted : frozenset of int
        Slices whose mask is asked for.
    """

    object_name: str
    design: Design
    prompted: tuple[int, ...]
    passes: tuple[Pass, ...]
    wanted: frozenset[int]


def passes(direction: str, start: int, lowest: int, highest: int) -> tuple[Pass, ...]:
    """Return the runs along the volume, in the order in which the study makes them.

    Parameters
    ----------
    direction : {"front_to_end", "bidirectional"}
    start : int
        Slice where a bidirectional run turns; it belongs to the backward pass. The predictor does
        not run backward from slice 0, so there the forward pass starts with slice 0 itself.
    lowest, highest : int
        Where a backward and a forward pass may stop. Slices beyond are never read by those before.

    Examples
    --------
    >>> [(p.first, p.last) for p in passes("bidirectional", 5, 2, 9)], passes("bidirectional", 0, 0, 9)
    ([(5, 2), (6, 9)], (Pass(first=0, last=9, reverse=False),))
    """
    if direction == "front_to_end" or start == 0:
        return (Pass(0, highest, reverse=False),)
    backward = Pass(start, lowest, reverse=True)
    return (backward, Pass(start + 1, highest, reverse=False)) if start < highest else (backward,)


def plan(
    objects: Mapping[str, np.ndarray],
    designs: Sequence[Design],
    protocol: str,
    until: str,
    given: Mapping[str, Sequence[int]] | None = None,
    *,
    each_alone: bool = False,
) -> list[Track]:
    """Resolve designs to slices, for every object that has a voxel.

    Parameters
    ----------
    objects : mapping of str to ndarray of bool, shape (z, y, x)
    designs : sequence of Design
        Repeated ones count once.
    protocol : {"corrected", "released"}
        How three slices are chosen; see `designs.prompted_slices`.
    until : {"last_object_slice", "volume_end"}
        Predict the slices that hold the object, and stop after the last of them in each direction;
        or predict every slice.
    given : mapping of str to sequence of int, optional
        Slices to prompt, by object, where a person chose them; the designs' frame choices then do not
        count. An object may be without a voxel if its slices are given and `until` is "volume_end".
    each_alone : bool
        Every slice that holds the object, or that is given, is prompted and is a track of its own: nothing
        is carried from one to another, and no other slice is predicted, whatever `until` says.
    """
    require_known("until", until, ENDS, what="end of a run")
    tracks = []
    for name, mask in objects.items():
        areas = np.count_nonzero(mask, axis=(1, 2))
        filled = np.flatnonzero(areas)
        chosen = None if given is None else tuple(sorted({int(index) for index in given.get(name, ())}))
        if each_alone:
            alone = list(map(int, filled)) if chosen is None else chosen
            tracks += [_alone(name, design, index) for design in dict.fromkeys(designs) for index in alone]
            continue
        whole = until == "volume_end"
        if chosen == () or (len(filled) == 0 and (chosen is None or not whole)):
            continue
        lowest, highest = (0, len(areas) - 1) if whole else (int(filled[0]), int(filled[-1]))
        if chosen:  # a prompt may lie beyond the object; its slice is passed, though not asked for
            lowest, highest = min(lowest, chosen[0]), max(highest, chosen[-1])
        wanted = frozenset(range(len(areas)) if whole else map(int, filled))
        for design in dict.fromkeys(designs):
            prompted = chosen or prompted_slices(areas, design.frame_choice, protocol)
            runs = passes(design.direction, start_slice(prompted), lowest, highest)
            tracks.append(Track(name, design, prompted, runs, wanted))
    return tracks


def _alone(name: str, design: Design, index: int) -> Track:
    return Track(name, design, (index,), (Pass(index, index, reverse=False),), frozenset((index,)))
