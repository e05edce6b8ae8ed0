"""2D: click after click on a slice, each in the largest error that the mask before has left.

The official image predictors do the decoding, on features that all clicks, objects and tasks share. As the
packages' own examples refine a mask, each click is given together with all prompts before it and with the
logits of the mask before, and the model is asked for one mask. The first mask is one of three candidates.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from medsam_nb.evaluation.single_slices import Decoded, decoding, require_drawn
from medsam_nb.models.features import SliceFeatures
from medsam_nb.models.sharing import Answers
from medsam_nb.protocol.corrections import next_click, with_click
from medsam_nb.protocol.prompts import Prompt


@dataclass(frozen=True, eq=False)
class ClickedMask:
    """A mask of a slice, and what it took.

    Attributes
    ----------
    prompt : Prompt
        All that was given: the initial prompt, and the clicks after it.
    mask : ndarray of bool, shape (y, x)
    score : float
        The model's own estimate of its IoU.
    ended : str
        Why no click follows although more were allowed; empty otherwise.
    """

    prompt: Prompt
    mask: np.ndarray
    score: float
    ended: str = ""


def click_loop(
    decode: Callable[..., Decoded],
    truth: np.ndarray,
    initial: Prompt,
    clicks: int,
    seed_parts: tuple,
    *,
    first: bool = False,
) -> list[ClickedMask]:
    """Return the masks of a slice after the initial prompt, and after each click.

    Parameters
    ----------
    decode : callable
        Of `single_slices.decoding`.
    truth : ndarray of bool, shape (y, x)
        Clicks are drawn from it; not empty.
    initial : Prompt
        Points, a box, or both.
    clicks : int
        How many at most after the initial prompt.
    seed_parts : tuple
        What identifies the slice: its `prompts.prompt_seed`.
    first : bool
        Keep the first of the initial prompt's candidates; otherwise the most confident one.
    """
    require_drawn(initial, "initial prompt")
    answer = decode(initial)
    kept = 0 if first else int(np.argmax(answer.scores))
    found: list[ClickedMask] = []
    prompt = initial
    while True:
        mask, score = answer.masks[kept], float(answer.scores[kept])
        if len(found) == clicks:
            return [*found, ClickedMask(prompt, mask, score)]
        click = next_click(truth, mask, prompt.points, *seed_parts, "click", len(found))
        if isinstance(click, str):
            return [*found, ClickedMask(prompt, mask, score, click)]
        found.append(ClickedMask(prompt, mask, score))
        prompt = with_click(prompt, click)
        answer, kept = decode(prompt, answer.logits[:, kept : kept + 1]), 0


def click_loops(
    features: SliceFeatures,
    initial: Mapping[tuple, tuple[int, np.ndarray, Prompt, tuple]],
    clicks: int,
    *,
    first: bool = False,
) -> Iterator[tuple[tuple, list[ClickedMask]]]:
    """Click on many slices, each encoded once.

    Parameters
    ----------
    features : SliceFeatures
        Of the slices and the model.
    initial : mapping of key to (slice_index, truth, prompt, seed_parts)
        See `click_loop`.
    clicks, first
        As for `click_loop`.

    Yields
    ------
    key
    masks : list of ClickedMask
        What `click_loop` returns.
    """
    constants: Answers = {}
    by_slice: dict[int, list[tuple]] = {}
    for key, (index, *_) in initial.items():
        by_slice.setdefault(index, []).append(key)
    features.expect(sorted(by_slice))
    for index in sorted(by_slice):
        with decoding(features, index, constants) as decode:
            found = []
            for key in by_slice[index]:
                _, truth, prompt, parts = initial[key]
                found.append((key, click_loop(decode, truth, prompt, clicks, parts, first=first)))
        yield from found
