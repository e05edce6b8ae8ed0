"""The oracle of corrections: the official video predictor, corrected in loops as a careful user would do it.

What `correction_loops` is tested against, and measured against: every strategy and every new information on
its own, prompts through the package's public methods into states that it keeps, propagation by its own loop.
Shared with the engine is only what is to be predicted (`protocol`) and the network.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO

import numpy as np

from medsam_nb.evaluation.reference import Decoded, driven
from medsam_nb.models.checkpoints import Model
from medsam_nb.protocol import corrections
from medsam_nb.protocol.designs import start_slice
from medsam_nb.protocol.prompts import Prompt, prompt_3d
from medsam_nb.protocol.tracks import Pass, passes

OBJECT = 7  # any number that the user chooses


@dataclass(frozen=True, eq=False)
class ByHand:
    """What one loop gave: logits (y, x) and scores of slices, all prompts, and why it was the last."""

    logits: dict[int, np.ndarray]
    scores: dict[int, float]
    prompts: dict[int, Prompt]
    ended: str = ""

    @property
    def masks(self) -> dict[int, np.ndarray]:
        """The masks of the slices, bool (y, x)."""
        return {index: logits > 0 for index, logits in self.logits.items()}


class _Side:
    """A state of the package for one pass, kept from loop to loop."""

    def __init__(self, network, decoded: Decoded, state: dict, one_pass: Pass) -> None:
        self.network, self.decoded, self.state, self.one_pass = network, decoded, state, one_pass
        self.scores: dict[int, float] = {}
        network.reset_state(state)

    def prompt(self, index: int, prompt: Prompt) -> None:
        network, state = self.network, self.state
        if prompt.mask is not None:
            network.add_new_mask(state, index, OBJECT, prompt.mask)
        elif not prompt.points:
            network.add_new_points_or_box(state, index, OBJECT, box=prompt.box)
        else:
            points, labels = [list(point) for point in prompt.points], list(prompt.point_labels)
            network.add_new_points_or_box(state, index, OBJECT, points, labels, box=prompt.box)
        self.scores[index] = self.decoded.score if prompt.mask is None else float("nan")

    def propagate(self) -> tuple[dict[int, np.ndarray], dict[int, float]]:
        one, logits, scores = self.one_pass, {}, {}
        with redirect_stderr(StringIO()):  # the package's progress bar
            for index, _, drawn in self.network.propagate_in_video(
                self.state, one.first, abs(one.last - one.first), reverse=one.reverse
            ):
                logits[index] = drawn[0, 0].float().cpu().numpy()
                scores[index] = self.scores.get(index, self.decoded.score)
        return logits, scores


def loops_by_hand(
    model: Model,
    new_state: Callable[[], dict],
    truth: np.ndarray,
    initial: Mapping[int, Prompt],
    seed_parts: tuple,
    *,
    strategies: Sequence[str] = corrections.STRATEGIES_3D,
    new_information: Sequence[str] = corrections.NEW_INFORMATION,
    loops: int = 3,
    first: bool = False,
) -> dict[tuple[str, str, int], ByHand]:
    """Return what every loop gave, by strategy, new information and loop.

    Parameters
    ----------
    model : Model
        Of family "sam2".
    new_state : callable
        Returns an inference state of the volume, such as `reference.video_state` does.
    truth, initial, seed_parts, strategies, new_information, loops, first
        As for `correction_loops.correction_loops`.
    """
    network, found = model.network, {}
    filled = np.flatnonzero(truth.any((1, 2)))
    start = start_slice(tuple(sorted(initial)))
    runs = passes("bidirectional", start, min(int(filled[0]), start), max(int(filled[-1]), start))

    def begun(prompts: Mapping[int, Prompt]) -> list[_Side]:
        sides = [_Side(network, decoded, new_state(), one_pass) for one_pass in runs]
        for side in sides:
            for index, prompt in sorted(prompts.items()):
                side.prompt(index, prompt)
        return sides

    def propagated(sides: Sequence[_Side]) -> tuple[dict, dict]:
        answers = [side.propagate() for side in sides]
        logits, scores = ({k: v for one in answers for k, v in one[part].items()} for part in (0, 1))
        return {int(i): logits[i] for i in filled}, {int(i): scores[i] for i in filled}

    def running(kind: str) -> None:
        prompts, sides = dict(initial), begun(initial)
        for loop in range(loops + 1):
            now = ByHand(*propagated(sides), dict(prompts))
            new = corrections.running_prompts(
                truth, now.masks, [one.slices for one in runs], list(prompts), kind,
                lambda index, kind: prompt_3d(truth[index], kind, (*seed_parts, index)),
            ) if loop < loops else ""  # fmt: skip
            found[corrections.RUNNING, kind, loop] = ByHand(
                now.logits, now.scores, now.prompts, new if isinstance(new, str) else ""
            )
            if isinstance(new, str):
                break
            for index, prompt in new.items():
                next(side for side in sides if index in side.one_pass.slices).prompt(index, prompt)
            prompts |= new
        if loop:
            found[corrections.RESTARTED, kind, loop] = ByHand(*propagated(begun(prompts)), prompts)

    def fresh(kind: str) -> None:
        prompts = dict(initial)
        for loop in range(loops + 1):
            now = ByHand(*propagated(begun(prompts)), dict(prompts))
            new = corrections.fresh_prompt(
                truth, now.masks, prompts, kind, *seed_parts, "loop", loop
            ) if loop < loops else ""  # fmt: skip
            reason = new if isinstance(new, str) else ""
            found[corrections.FRESH, kind, loop] = ByHand(now.logits, now.scores, now.prompts, reason)
            if isinstance(new, str):
                return
            prompts |= {new[0]: new[1]}

    with driven(model, add_all_frames_to_correct_as_cond=True) as decoded:
        decoded.first_wins = first
        for kind in new_information:
            for strategy, run in ((corrections.RUNNING, running), (corrections.FRESH, fresh)):
                if strategy in strategies:
                    run(kind)
    return found
