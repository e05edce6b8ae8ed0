"""All designs of a volume for little more than one: a tree of shared memory states.

Every prediction of the video model follows from a slice's features and a memory state: what was
remembered of the slices before. Designs differ late. They share the features of all slices; those with
the same prompts share the prompted slices; and two mask choices share the state until they first keep
different candidates. So the designs of an object are a tree. Its roots are the memories of prompted
slices, a `steps.Branch` is one state with the designs that are in it, and a branch forks where its designs
part. One sweep forward and one backward carry all branches, and every step is made once per branch.

The predictions are those of `reference.sweep`, bit for bit, unless the options ask for a faster mode.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import torch

from medsam_nb.evaluation.scoring import Counts, counted
from medsam_nb.evaluation.steps import Branch, Kept, Steps
from medsam_nb.models.checkpoints import Model
from medsam_nb.models.features import SliceFeatures
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.options import PropagationOptions
from medsam_nb.protocol.prompts import Prompt
from medsam_nb.protocol.tracks import SliceMask, Track, plan


@dataclass(frozen=True, eq=False)
class SliceCounts:
    """How the pixels of one predicted slice agree with the truth.

    Attributes
    ----------
    object_name, designs, slice_index, score, prompted
        As of a `tracks.SliceMask`.
    counts : Counts
    mask : ndarray of bool, shape (y, x), or None
        Where it was asked for.
    """

    object_name: str
    designs: tuple[Design, ...]
    slice_index: int
    counts: Counts
    score: float
    prompted: bool
    mask: np.ndarray | None


@dataclass(frozen=True, eq=False)
class _Answer:
    """What was kept of an object on a slice, and by which designs."""

    object_name: str
    kept: Kept
    designs: tuple[Design, ...]


@dataclass(frozen=True, eq=False)
class _Slice:
    """The answers on one slice, all prompted or all tracked, and the logits (n, y, x) of a few at a time."""

    steps: Steps
    index: int
    prompted: bool
    answers: list[_Answer]

    def in_groups(self) -> Iterator[tuple[list[_Answer], torch.Tensor]]:
        """Yield the answers a few at a time, with their logits."""
        first = 0
        for logits in self.steps.at_slice_resolution([one.kept.logits for one in self.answers]):
            yield self.answers[first : first + len(logits)], logits
            first += len(logits)


def _roots(tracks: Sequence[Track], kept: Mapping[tuple[Track, int], Kept], reverse: bool) -> list[Branch]:
    """Return the branches of one direction: designs whose prompted slices and route are the same."""
    roots: dict[tuple, list[Track]] = defaultdict(list)
    for track in tracks:
        for one_pass in track.passes:
            ahead = frozenset(one_pass.slices) - set(track.prompted)
            if ahead and one_pass.reverse == reverse:
                memories = tuple(kept[track, index] for index in track.prompted)
                roots[track.object_name, ahead, track.prompted, memories].append(track)
    return [
        Branch(
            name,
            tuple(track.design for track in sharing),
            ahead,
            {index: one.remembered for index, one in zip(prompted, memories, strict=True)},
        )
        for (name, ahead, prompted, memories), sharing in roots.items()
    ]


def sweep(
    model: Model,
    slices: np.ndarray,
    objects: Mapping[str, np.ndarray],
    designs: Sequence[Design],
    prompt_of: Callable[[str, int, str], Prompt],
    options: PropagationOptions = PropagationOptions(),
    *,
    features: SliceFeatures | None = None,
    given: Mapping[str, Sequence[int]] | None = None,
) -> Iterator[SliceMask]:
    """Predict every design of every object of a volume, each distinct step once.

    Parameters
    ----------
    model : Model
        Of family "sam2".
    slices : ndarray of uint8, shape (z, y, x) or, in colour, (z, y, x, 3)
    objects : mapping of str to ndarray of bool, shape (z, y, x)
        Tracked one by one; an object without a voxel yields nothing.
    designs : sequence of Design
    prompt_of : callable (object_name, slice_index, kind) -> Prompt
        Asked once per object, slice and kind.
    options : PropagationOptions
    features : SliceFeatures, optional
        Of these slices and this model, to share them with other runs.
    given : mapping of str to sequence of int, optional
        Prompted slices by object, in place of the designs' frame choices; see `tracks.plan`.

    Yields
    ------
    SliceMask
        Each wanted slice of each design of each object once: prompted slices first, then slice by slice
        forward, then backward.
    """
    for one in _predicted(model, slices, objects, designs, prompt_of, options, features, given):
        for answers, logits in one.in_groups():
            for answer, found in zip(answers, logits.cpu().numpy(), strict=True):
                kept = answer.kept
                yield SliceMask(
                    answer.object_name, answer.designs, one.index, found, kept.score, one.prompted
                )


def sweep_counts(
    model: Model,
    slices: np.ndarray,
    objects: Mapping[str, np.ndarray],
    designs: Sequence[Design],
    prompt_of: Callable[[str, int, str], Prompt],
    options: PropagationOptions = PropagationOptions(),
    *,
    features: SliceFeatures | None = None,
    given: Mapping[str, Sequence[int]] | None = None,
    masks: bool = False,
) -> Iterator[SliceCounts]:
    """Do as `sweep`, and count pixels where a prediction was made: of a slice only numbers leave a GPU.

    Parameters are those of `sweep`; with `masks` the masks leave it, too.

    Yields
    ------
    SliceCounts
        In the order of `sweep`.
    """
    for one in _predicted(model, slices, objects, designs, prompt_of, options, features, given):
        truth = {name: mask[one.index] for name, mask in objects.items()}
        for answers, logits in one.in_groups():
            counts = counted(logits, truth, [answer.object_name for answer in answers])
            found = (logits > 0).cpu().numpy() if masks else [None] * len(answers)
            for answer, pixels, mask in zip(answers, counts, found, strict=True):
                said = answer.object_name, answer.designs, one.index
                yield SliceCounts(*said, pixels, answer.kept.score, one.prompted, mask)


def _predicted(
    model: Model,
    slices: np.ndarray,
    objects: Mapping[str, np.ndarray],
    designs: Sequence[Design],
    prompt_of: Callable[[str, int, str], Prompt],
    options: PropagationOptions,
    features: SliceFeatures | None,
    given: Mapping[str, Sequence[int]] | None,
) -> Iterator[_Slice]:
    """Yield the predictions of slice after slice; see `sweep`."""
    content = options.window.remembered
    tracks = plan(objects, designs, options.protocol, options.until, given, each_alone=content == "nothing")
    if not tracks:
        return
    features = features or SliceFeatures(model, slices, frames=options.frames)
    if features.frames != options.frames:
        raise ValueError(f"features of frames {features.frames!r} given, {options.frames!r} asked for")
    features.expect(_order(tracks))
    steps = Steps(model, features, options)
    kept: dict[tuple[Track, int], Kept] = {}
    yield from _prompted(steps, tracks, cache(prompt_of), kept)

    wanted = {track.object_name: track.wanted for track in tracks}
    reach = options.window.reach, model.network.max_obj_ptrs_in_encoder - 1
    for reverse in (False, True):
        branches = _roots(tracks, kept, reverse)
        for index in sorted(set().union(*(branch.slices for branch in branches)), reverse=reverse):
            here = [branch for branch in branches if index in branch.slices]
            grown = [branch for branch in branches if index not in branch.slices]
            true = {}
            if content == "truth":
                names = sorted({branch.object_name for branch in here})
                with steps.running(tracking=False):
                    true = steps.remember(index, {name: objects[name][index] for name in names})
            answers = []
            for branch, one, agreeing in _tracked(steps, here, index, reverse, options):
                past = replace(one, remembered=true.get(branch.object_name, one.remembered))
                grown.append(branch.after(index, past, agreeing, reach))
                if index in wanted[branch.object_name]:
                    answers.append(_Answer(branch.object_name, one, agreeing))
            branches = grown
            yield _Slice(steps, index, False, answers)


def _order(tracks: Sequence[Track]) -> Iterator[int]:
    """Yield the slices in the order in which they are looked at; an inference state opens with slice 0."""
    yield 0
    yield from sorted({index for track in tracks for index in track.prompted})
    for reverse in (False, True):
        runs = (one.slices for track in tracks for one in track.passes if one.reverse == reverse)
        yield from sorted(set().union(*runs), reverse=reverse)


def _prompted(
    steps: Steps,
    tracks: Sequence[Track],
    prompt_of: Callable[[str, int, str], Prompt],
    kept: dict[tuple[Track, int], Kept],
) -> Iterator[_Slice]:
    """Yield the prompted slices, every prompt decoded once; put into `kept` what each track keeps of them."""
    asked: dict[int, dict[tuple, list[Track]]] = defaultdict(lambda: defaultdict(list))
    for track in tracks:
        for index in track.prompted:
            prompt = prompt_of(track.object_name, index, track.design.prompt)
            asked[index][track.object_name, prompt.content].append(track)
    for index in sorted(asked):
        answers = []
        with steps.running(tracking=False):
            for (name, _), sharing in asked[index].items():
                prompt = prompt_of(name, index, sharing[0].design.prompt)
                choice_of = {track: track.design.mask_choice == "first_mask" for track in sharing}
                step = partial(steps.prompt, index, prompt)
                (by_choice,) = steps.per_choice(set(choice_of.values()), step)
                for one in dict.fromkeys(by_choice.values()):
                    agreeing = [track for track in sharing if by_choice[choice_of[track]] is one]
                    kept |= {(track, index): one for track in agreeing}
                    answers.append(_Answer(name, one, tuple(track.design for track in agreeing)))
        yield _Slice(steps, index, True, answers)


def _tracked(
    steps: Steps, branches: Sequence[Branch], index: int, reverse: bool, options: PropagationOptions
) -> Iterator[tuple[Branch, Kept, tuple[Design, ...]]]:
    """Track a slice from every branch: yield what was kept of it, and by which of the branch's designs."""

    def by_first_mask(design: Design) -> bool:
        return options.mask_scope != "prompted" and design.mask_choice == "first_mask"

    with steps.running(tracking=True):
        for batch, choices in _batches(branches, index, reverse, by_first_mask, options):
            answers = steps.per_choice(choices, partial(steps.track, batch, index, reverse), len(batch))
            for branch, by_choice in zip(batch, answers, strict=True):
                for one in dict.fromkeys(by_choice.values()):
                    agreeing = [d for d in branch.designs if by_choice[by_first_mask(d)] is one]
                    yield branch, one, tuple(agreeing)


def _batches(
    branches: Sequence[Branch],
    index: int,
    reverse: bool,
    by_first_mask: Callable[[Design], bool],
    options: PropagationOptions,
) -> Iterator[tuple[list[Branch], set[bool]]]:
    """Yield branches that are tracked together, and their mask choices (True: first).

    For compiled kernels their number is a power of two: each number is compiled on its own.
    """
    most = options.branches_at_once
    alike: dict[tuple, list[Branch]] = defaultdict(list)
    for number, branch in enumerate(branches):
        choices = frozenset(map(by_first_mask, branch.designs))
        alike[choices, branch.kind(index, reverse) if most > 1 else number].append(branch)
    for (choices, _), some in alike.items():
        while some:
            size = min(most, len(some))
            if options.kernels == "compiled":
                size = 2 ** (size.bit_length() - 1)
            yield some[:size], set(choices)
            some = some[size:]
