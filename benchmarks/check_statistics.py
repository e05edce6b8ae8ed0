"""Simulate what the statistics promise: interval coverage, family-wise errors, power.

    python benchmarks/check_statistics.py [repeats] [output.json]

2,000 repeats take a few minutes on one core; the tests run the same functions with fewer.
"""

import json
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from medsam_nb.protocol.designs import FRAME_CHOICES
from medsam_nb.statistics import paired
from medsam_nb.statistics.pooling import Comparison


def skewed(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Differences of IoUs as they come: skewed, with mean 0 and standard deviation 0.1."""
    return (rng.gamma(2.0, 1.0, size) - 2.0) / np.sqrt(2.0) * 0.1


SKEWED_MEDIAN = (1.6783469900166605 - 2.0) / np.sqrt(2.0) * 0.1  # of gamma(2), solved numerically


def coverage(data_sets: int, cases: int, repeats: int, between: float = 0.05, seed: int = 0) -> float:
    """Return how often the 95 % interval of the median holds the true median.

    Data sets are drawn anew in every repeat where the interval resamples them; where it takes them
    as given, they are all alike, so that the true median is the same number.
    """
    rng = np.random.default_rng(seed)
    outer = data_sets >= paired.FEWEST_DATA_SETS
    groups = np.repeat(np.arange(data_sets), cases).astype(str)
    if outer:
        pool = skewed(rng, (200_000,)) + rng.normal(0, between, 200_000)
        truth = float(np.median(pool))
    else:
        truth = SKEWED_MEDIAN
    hits = 0
    for repeat in range(repeats):
        values = skewed(rng, (data_sets, cases))
        if outer:
            values = values + rng.normal(0, between, (data_sets, 1))
        low, high, _ = paired.interval(values.ravel(), groups, resamples=1000, seed=repeat)
        hits += low <= truth <= high
    return hits / repeats


def rejections(effects: dict[str, float], cases: int, repeats: int, seed: int = 0) -> np.ndarray:
    """Return which of all pairwise comparisons of frame choices were declared different.

    Every case has its own base, and a wobble per frame choice with a standard deviation of 0.05.

    Returns
    -------
    ndarray of bool, shape (repeats, comparisons)
    """
    rng = np.random.default_rng(seed)
    pairs = list(combinations(effects, 2))
    found = []
    for repeat in range(repeats):
        base = rng.normal(0.5, 0.1, cases)
        value = {
            name: np.clip(base + effect + rng.normal(0, 0.05, cases), 0, 1)
            for name, effect in effects.items()
        }
        p = []
        for a, b in pairs:
            values = pd.DataFrame({"data_set": "made up", "a": value[a], "b": value[b]})
            declared = Comparison(f"{a} against {b}", {"frame_choice": a}, {"frame_choice": b})
            p.append(paired.compare_pairs(values, declared, resamples=2, seed=repeat)["p"])
        found.append(paired.holm(np.array(p)) < paired.ALPHA)
    return np.array(found)


def equivalences(effect: float, cases: int, repeats: int, seed: int = 0) -> float:
    """Return how often a mean difference of `effect` is called equivalent within 0.05.

    Differences are normal with a standard deviation of 0.05.
    """
    rng = np.random.default_rng(seed)
    p = [paired.equivalence(effect + rng.normal(0, 0.05, cases), 0.05, n)[0] for n in range(repeats)]
    return float((np.array(p) < paired.ALPHA).mean())


def results(repeats: int) -> list[dict]:
    """Return one row per promise: what was simulated, what was seen, what was promised."""
    rows = []
    for data_sets, cases in ((1, 6), (1, 10), (1, 20), (1, 50), (3, 10), (5, 10), (8, 10), (18, 10)):
        seen = coverage(data_sets, cases, repeats)
        case = f"{data_sets} data sets x {cases} cases"
        rows.append(
            {"promise": "coverage of the 95 % interval", "case": case, "seen": seen, "promised": 0.95}
        )
    none = dict.fromkeys(FRAME_CHOICES, 0.0)
    for cases in (8, 20, 60):
        wrong = rejections(none, cases, repeats).any(axis=1).mean()
        case = f"6 comparisons, no effect, {cases} cases"
        rows.append({"promise": "family-wise error", "case": case, "seen": wrong, "promised": 0.05})
    for cases in (8, 20, 60):
        right = rejections({**none, "three_slices": 0.08}, cases, repeats)[:, [2, 4, 5]].mean()
        case = f"effect 0.08 (1.1 standard deviations of the difference), {cases} cases"
        rows.append({"promise": "power per true effect", "case": case, "seen": right, "promised": None})
    for effect, promise, promised in ((0.05, "equivalence called at its margin", 0.05), (0.0, "power", None)):
        for cases in (8, 20, 60):
            seen = equivalences(effect, cases, repeats)
            case = f"equivalence within 0.05, difference {effect:g}, {cases} cases"
            rows.append({"promise": promise, "case": case, "seen": seen, "promised": promised})
    return rows


if __name__ == "__main__":
    rows = results(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
    print(pd.DataFrame(rows).to_string(index=False))
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(json.dumps(rows, indent=1, default=float), encoding="utf-8")
