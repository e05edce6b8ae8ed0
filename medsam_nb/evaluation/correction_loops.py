"""3D: corrections in loops, by the running predictor or by fresh starts, each distinct piece of work once.

Both interactive algorithms of the paper's last version, with a point, a box or the truth's mask as new
information. All loops of an object begin with the same prompts, and so with the same masks and memories; a
fresh start with prompts that were given before in this form is looked up. Slices are encoded once.

* The running predictor: one state for each side of the start, as the study resets between its two passes.
  In every loop a slice of each side is prompted while the state remembers what it tracked, and the side is
  tracked again from the start. After the last loop all prompts are given to a fresh predictor.
* Fresh starts: in every loop all prompts so far are given to a predictor that remembers nothing.

The steps are the official predictor's own methods, as in `propagation`, with one of its options set: a
corrected slice stays prompted (`add_all_frames_to_correct_as_cond`, as SAM 2 was trained). With the package's
default a correction of a tracked slice is lost as soon as the slice is tracked again
(github.com/facebookresearch/sam2/issues/731), and no loop would change any mask.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch

from medsam_nb.errors import require_known
from medsam_nb.evaluation.steps import Branch, Kept, Steps
from medsam_nb.models.checkpoints import Model
from medsam_nb.models.features import SliceFeatures
from medsam_nb.models.predictor import resumed_state
from medsam_nb.models.sharing import replaced
from medsam_nb.protocol.corrections import (
    FRESH,
    NEW_INFORMATION,
    RESTARTED,
    RUNNING,
    STRATEGIES_3D,
    fresh_prompt,
    running_prompts,
)
from medsam_nb.protocol.designs import start_slice
from medsam_nb.protocol.options import PropagationOptions
from medsam_nb.protocol.prompts import Prompt, prompt_3d
from medsam_nb.protocol.tracks import Pass, passes


@dataclass(frozen=True, eq=False)
class Prediction:
    """The masks of an object on the slices that hold it.

    Attributes
    ----------
    masks : dict of int to ndarray of bool, shape (y, x)
    scores : dict of int to float
        The model's own estimates of the IoU; NaN where a mask was given.
    """

    masks: dict[int, np.ndarray]
    scores: dict[int, float]


@dataclass(frozen=True, eq=False)
class Corrected:
    """An object after so many loops of corrections.

    Attributes
    ----------
    strategy : {"correction", "correction_reinitialised", "reinitialisation"}
    new_information : {"one_point", "one_box", "mask"}
    loop : int
        0 before any correction.
    prompts : dict of int to Prompt
        All that was said so far, by slice.
    given : int
        How many prompts that were: initial ones, and one for each correction of a slice.
    prediction : Prediction
    ended : str
        Why no loop follows although more were allowed; empty otherwise.
    """

    strategy: str
    new_information: str
    loop: int
    prompts: dict[int, Prompt]
    given: int
    prediction: Prediction
    ended: str = ""


@dataclass(frozen=True, eq=False)
class Side:
    """One pass, and what its state remembers: `prompted` and `tracked` slices."""

    one_pass: Pass
    prompted: dict[int, Kept]
    tracked: dict[int, Kept] = field(default_factory=dict)

    @property
    def kept(self) -> dict[int, Kept]:
        """What was kept on the slices of the pass."""
        known = self.prompted | self.tracked
        return {index: known[index] for index in self.one_pass.slices}


class Tracker:
    """One object of a volume under any prompts; what was asked before is answered from memory.

    Parameters
    ----------
    steps : Steps
    truth : ndarray of bool, shape (z, y, x)
        Tells which slices are wanted; not empty.
    start : int
        Slice where the backward pass starts; the forward pass goes on after it.
    first : bool
        Keep the first candidate mask; otherwise the most confident one.
    """

    def __init__(self, steps: Steps, truth: np.ndarray, start: int, first: bool) -> None:
        self.steps, self.first = steps, first
        self.wanted = [int(index) for index in np.flatnonzero(truth.any((1, 2)))]
        lowest, highest = min(self.wanted[0], start), max(self.wanted[-1], start)
        self.passes = passes("bidirectional", start, lowest, highest)
        self._prompted: dict[tuple, Kept] = {}
        self._fresh: dict[frozenset, Prediction] = {}

    def _step(self, step) -> Kept:
        return self.steps.per_choice({self.first}, step)[0][self.first]

    def prompted(self, index: int, prompt: Prompt) -> Kept:
        """Return what a fresh predictor keeps on a prompted slice."""
        key = index, prompt.content
        if key not in self._prompted:
            with self.steps.running(tracking=False):
                self._prompted[key] = self._step(partial(self.steps.prompt, index, prompt))
        return self._prompted[key]

    def track(self, one_pass: Pass, prompted: Mapping[int, Kept]) -> Side:
        """Run one pass from prompted slices; the state that results remembers all that it tracked."""
        ahead = frozenset(one_pass.slices) - set(prompted)
        memories = {index: kept.remembered for index, kept in prompted.items()}
        branch, tracked = Branch("", (), ahead, memories), {}
        for index in one_pass.slices:
            if index in ahead:
                with self.steps.running(tracking=True):
                    kept = self._step(partial(self.steps.track, [branch], index, one_pass.reverse))
                branch.tracked[index], tracked[index] = kept.remembered, kept
        return Side(one_pass, dict(prompted), tracked)

    def begin(self, prompts: Mapping[int, Prompt]) -> list[Side]:
        """Give prompts to a fresh predictor and run both passes."""
        kept = {index: self.prompted(index, prompt) for index, prompt in prompts.items()}
        sides = [self.track(one_pass, kept) for one_pass in self.passes]
        self._fresh[_content(prompts)] = self.seen(sides)
        return sides

    def begun(self, prompts: Mapping[int, Prompt]) -> Prediction:
        """Return what a fresh predictor makes of prompts."""
        if _content(prompts) not in self._fresh:
            self.begin(prompts)
        return self._fresh[_content(prompts)]

    def correct(self, side: Side, index: int, prompt: Prompt) -> Side:
        """Prompt a slice that a running state has tracked, and let it go on: track its side again."""
        with (
            self.steps.running(tracking=False),
            replaced(self.steps.network, "add_all_frames_to_correct_as_cond", True),
        ):
            kept = self._step(partial(self._into_running, side, index, prompt))
        return self.track(side.one_pass, side.prompted | {index: kept})

    def _into_running(self, side: Side, index: int, prompt: Prompt) -> tuple[torch.Tensor, dict]:
        prompted, tracked = (
            {place: kept.remembered for place, kept in known.items()}
            for known in (side.prompted, side.tracked)
        )
        visited, reverse = side.one_pass.slices, side.one_pass.reverse
        resumed_state(self.steps.network, self.steps.state, prompted, tracked, visited, reverse)
        return self.steps.prompted_output(index, prompt)

    def seen(self, sides: Sequence[Side]) -> Prediction:
        """Return the masks of the wanted slices."""
        known = {index: kept for side in sides for index, kept in side.kept.items()}
        groups = self.steps.at_slice_resolution([known[index].logits for index in self.wanted])
        found = [mask for logits in groups for mask in (logits > 0).cpu().numpy()]
        masks = dict(zip(self.wanted, found, strict=True))
        return Prediction(masks, {index: known[index].score for index in self.wanted})


def _content(prompts: Mapping[int, Prompt]) -> frozenset:
    """Return what tells prompts of slices apart: a fresh predictor answers the same to the same."""
    return frozenset((index, prompt.content) for index, prompt in prompts.items())


def correction_loops(
    model: Model,
    truth: np.ndarray,
    initial: Mapping[int, Prompt],
    features: SliceFeatures,
    seed_parts: tuple,
    *,
    strategies: Sequence[str] = STRATEGIES_3D,
    new_information: Sequence[str] = NEW_INFORMATION,
    loops: int = 3,
    first: bool = False,
    options: PropagationOptions = PropagationOptions(),
) -> Iterator[Corrected]:
    """Correct an object of a volume in loops, by every strategy and with every new information.

    Parameters
    ----------
    model : Model
        Of family "sam2".
    truth : ndarray of bool, shape (z, y, x)
        Corrections are drawn from it; not empty.
    initial : mapping of slice to Prompt
        At least one; propagation starts at the middle one.
    features : SliceFeatures
        Of the slices and the model.
    seed_parts : tuple
        What identifies the object: its `prompts.prompt_seed` but for the slice.
    strategies : sequence of {"correction", "reinitialisation"}
    new_information : sequence of {"one_point", "one_box", "mask"}
    loops : int
        At most.
    first : bool
        Keep the first candidate mask; otherwise the most confident one.
    options : PropagationOptions

    Yields
    ------
    Corrected
        For every strategy and new information loop 0, then each loop that was made; after the running
        predictor's last loop the same prompts in a fresh one.
    """
    for strategy in strategies:
        require_known("strategies", strategy, STRATEGIES_3D, what="strategy of corrections")
    initial = dict(sorted(initial.items()))
    start, filled = start_slice(tuple(initial)), [int(index) for index in np.flatnonzero(truth.any((1, 2)))]
    features.expect([*initial, *range(start, filled[0] - 1, -1), *range(start + 1, filled[-1] + 1)])
    tracker = Tracker(Steps(model, features, options), truth, start, first)
    sides = tracker.begin(initial)
    for kind in new_information:
        begun = Corrected("", kind, 0, initial, len(initial), tracker.begun(initial))
        if RUNNING in strategies:
            yield from _running(tracker, truth, replace(begun, strategy=RUNNING), sides, loops, seed_parts)
        if FRESH in strategies:
            yield from _fresh(tracker, truth, replace(begun, strategy=FRESH), loops, seed_parts)


def _running(
    tracker: Tracker, truth: np.ndarray, now: Corrected, sides: list[Side], loops: int, seed_parts: tuple
) -> Iterator[Corrected]:
    def drawn(index: int, kind: str) -> Prompt:
        return prompt_3d(truth[index], kind, (*seed_parts, index))

    areas = [side.one_pass.slices for side in sides]
    while now.loop < loops:
        masks, prompts = now.prediction.masks, now.prompts
        new = running_prompts(truth, masks, areas, list(prompts), now.new_information, drawn)
        if isinstance(new, str):
            now = replace(now, ended=new)
            break
        yield now
        for index, prompt in new.items():
            (place,) = (place for place, area in enumerate(areas) if index in area)
            sides = [*sides[:place], tracker.correct(sides[place], index, prompt), *sides[place + 1 :]]
        now = replace(
            now,
            loop=now.loop + 1,
            prompts=dict(sorted((prompts | new).items())),
            given=now.given + len(new),
            prediction=tracker.seen(sides),
        )
    yield now
    if now.loop:
        yield replace(now, strategy=RESTARTED, prediction=tracker.begun(now.prompts), ended="")


def _fresh(
    tracker: Tracker, truth: np.ndarray, now: Corrected, loops: int, seed_parts: tuple
) -> Iterator[Corrected]:
    while now.loop < loops:
        parts = (*seed_parts, "loop", now.loop)
        new = fresh_prompt(truth, now.prediction.masks, now.prompts, now.new_information, *parts)
        if isinstance(new, str):
            now = replace(now, ended=new)
            break
        yield now
        prompts = dict(sorted((now.prompts | {new[0]: new[1]}).items()))
        prediction = tracker.begun(prompts)
        now = replace(now, loop=now.loop + 1, prompts=prompts, given=now.given + 1, prediction=prediction)
    yield now
