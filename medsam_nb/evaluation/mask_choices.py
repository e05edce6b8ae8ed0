"""Which candidate mask of a slice is kept in 2D: by the model's scores, or, for a bound, by the truth."""

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np

from medsam_nb.protocol.metrics import iou


def chosen_masks(
    truth: np.ndarray, answers: Sequence[tuple[np.ndarray, np.ndarray]]
) -> dict[str, tuple[np.ndarray, float]]:
    """Return the mask of a slice under every mask choice of 2D, and the mean score of what it unites.

    Parameters
    ----------
    truth : ndarray of bool, shape (y, x)
        Not empty; the oracles choose by it (of equally good choices the first).
    answers : sequence of (masks, scores)
        Of each call: three candidates, bool (3, y, x), and the model's estimates of their IoU.
    """

    def united(picks: Sequence[int]) -> tuple[np.ndarray, float]:
        masks = [masks[pick] for (masks, _), pick in zip(answers, picks, strict=True)]
        scores = [float(scores[pick]) for (_, scores), pick in zip(answers, picks, strict=True)]
        return np.logical_or.reduce(masks), float(np.mean(scores))

    def best(choices: Iterable[Sequence[int]]) -> tuple[np.ndarray, float]:
        return max(map(united, choices), key=lambda choice: iou(truth, choice[0]))

    calls, candidate_numbers = len(answers), range(len(answers[0][1]))
    return {
        "first_mask": united([0] * calls),
        "most_confident_mask": united([int(np.argmax(scores)) for _, scores in answers]),
        "oracle_mask": best(product(candidate_numbers, repeat=calls)),
        "oracle_channel": best([number] * calls for number in candidate_numbers),
    }
