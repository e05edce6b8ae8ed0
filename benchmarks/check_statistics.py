"""Simulate what the statistics promise: false findings, coverage of intervals, power; print a Markdown table.

    python -m benchmarks.check_statistics [repeats]

1,000 repeats take some ten minutes on one core; the tests run the same functions with fewer. Every row goes
through the functions that comparisons and claims go through. "False" means: a finding (corrected where there
are several) although there is no effect where the finding claims one, or with the wrong sign.
"""

import sys
from collections.abc import Callable

import numpy as np
import pandas as pd

from medsam_nb.statistics.claims import HIGH_IOU, chosen_and_tested
from medsam_nb.statistics.inference import ALPHA, NONE, OTHERS, infer, mean_interval
from medsam_nb.statistics.paired import holm

# Cases of the study's 18 data sets as the manifest expects them (unknown ones by the nearest alike), at most
# 300: the mean of a data set hardly varies beyond.
STUDY_COUNTS = (40, 20, 40, 300, 100, 131, 140, 41, 126, 281, 300, 300, 300, 140, 300, 300, 300, 300)
SD = 0.08  # of a difference of IoUs between patients


def skewed(rng: np.random.Generator, size) -> np.ndarray:
    """Differences of IoUs as they come: skewed, mean 0, standard deviation `SD`."""
    return (rng.gamma(2.0, 1.0, size) - 2.0) / np.sqrt(2.0) * SD


def symmetric(rng: np.random.Generator, size) -> np.ndarray:
    return rng.normal(0, SD, size)


def made(
    rng: np.random.Generator,
    counts: tuple[int, ...],
    between: float,
    effect: float,
    draw: Callable = symmetric,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return differences of patients, their data sets, and the effect of every data set."""
    of_sets = effect + rng.normal(0, between, len(counts)) if between else np.full(len(counts), effect)
    sets = np.repeat(np.arange(len(counts)), counts)
    return draw(rng, len(sets)) + of_sets[sets], sets.astype(str), of_sets


def findings(counts, between, effect, repeats, seed=0, draw=symmetric, level=None) -> dict[str, float]:
    """Return the shares of findings in either direction, and of those whose sign is wrong.

    Where the finding speaks of these data sets, the truth is the mean of their effects; where it speaks of
    others like them it is `effect`.
    """
    rng, above, below, false = np.random.default_rng(seed), 0, 0, 0
    for _ in range(repeats):
        d, sets, of_sets = made(rng, counts, between, effect, draw)
        found = infer(d, sets)
        truth = effect if found["generalises_to"] == OTHERS else of_sets.mean()
        hit = found["p"] < ALPHA and found["generalises_to"] != NONE
        sign = np.sign(found["difference"]) if hit else 0
        above, below = above + (sign > 0), below + (sign < 0)
        false += bool(hit and (abs(truth) < 1e-12 or sign != np.sign(truth)))
    return {"above": above / repeats, "below": below / repeats, "false": false / repeats}


def coverage(counts, between, repeats, seed=0) -> dict[str, float]:
    """Return how often the interval of the effect, and that of the mean, hold the truth."""
    rng, effects, means = np.random.default_rng(seed), 0, 0
    for _ in range(repeats):
        d, sets, of_sets = made(rng, counts, between, 0.02)
        found = infer(d, sets)
        others = found["generalises_to"] == OTHERS
        effects += found["ci_low"] <= (0.02 if others else of_sets.mean()) <= found["ci_high"]
        values, sets, of_sets = made(rng, counts, between, 0.02, skewed)
        _, low, high = mean_interval(values, sets)
        means += low <= (0.02 if others else of_sets.mean()) <= high
    return {"effect": effects / repeats, "mean": means / repeats}


def several_pictures(patients: int, pictures: int, repeats: int, seed=0) -> float:
    """Return the share of false findings for patients with several pictures each, pooled by patient."""
    rng, wrong = np.random.default_rng(seed), 0
    for _ in range(repeats):
        d = rng.normal(0, SD, patients)[:, None] + rng.normal(0, SD / 2, (patients, pictures))
        wrong += infer(d.mean(axis=1), np.full(patients, "one"))["p"] < ALPHA
    return wrong / repeats


def best_of_designs(counts, designs: int, repeats: int, bar: float | None = None, seed=0) -> float:
    """Return the share of findings about the best of exchangeable designs: against their mean, or a bar."""
    rng, wrong = np.random.default_rng(seed), 0
    places = [(f"set {k}", f"patient {n}") for k, count in enumerate(counts) for n in range(count)]
    index = pd.MultiIndex.from_tuples(places, names=["data_set", "patient_id"])
    for _ in range(repeats):
        centre = 0.6 if bar is None else bar
        values = centre + rng.normal(0, SD, (len(index), 1)) + rng.normal(0, SD / 2, (len(index), designs))
        best, tested = chosen_and_tested(pd.DataFrame(values, index=index))
        rival = tested.mean(axis=1) if bar is None else bar
        sided = "two-sided" if bar is None else "greater"
        sets = tested.index.get_level_values("data_set").to_numpy(str)
        found = infer((tested[best] - rival).to_numpy(), sets, alternative=sided)
        wrong += found["p"] < ALPHA and found["generalises_to"] != NONE
    return wrong / repeats


def family(counts, effect: float, repeats: int, tests: int = 6, seed=0) -> tuple[float, float]:
    """Return the share of families with a false finding, and the power; half of the tests have an effect."""
    rng, wrong, right = np.random.default_rng(seed), 0, []
    for _ in range(repeats):
        p = []
        for number in range(tests):
            d, sets, _ = made(rng, counts, 0.0, effect if number < tests // 2 else 0.0)
            p.append(infer(d, sets)["p"])
        found = holm(np.array(p)) < ALPHA
        wrong += found[tests // 2 :].any()
        right.append(found[: tests // 2].mean())
    return wrong / repeats, float(np.mean(right))


def equivalences(effect: float, counts, repeats: int, between: float = 0.0, seed=0) -> float:
    """Return how often differences of this mean are called equal within 0.05."""
    rng, said = np.random.default_rng(seed), 0
    for _ in range(repeats):
        d, sets, _ = made(rng, counts, between, effect)
        said += infer(d, sets, test="equivalence", margin=0.05)["p"] < ALPHA
    return said / repeats


def results(repeats: int) -> list[tuple[str, str, str, float]]:
    """Return rows of: promise, where, promised, seen."""
    rows = []

    def add(promise: str, where: str, promised: str, seen: float) -> None:
        rows.append((promise, where, promised, seen))

    few = "within these data sets"
    for counts, where in (
        ((10,), "1 data set of 10 patients"),
        ((10,) * 4, "4 data sets of 10"),
        ((3, 12, 1, 40), "4 data sets of 1 to 40"),
        ((10,) * 8, "8 data sets of 10"),
    ):
        add("false findings, no effect", where, "at most 5 %", findings(counts, 0.0, 0.0, repeats)["false"])
        skew = findings(counts, 0.0, 0.0, repeats, draw=skewed)["false"]
        add("false findings, no mean effect, skewed differences", where, "not promised", skew)
    for between in (0.03, 0.05, 0.08):
        where = f"18 data sets with the study's counts, effects with SD {between:g} around 0"
        seen = findings(STUDY_COUNTS, between, 0.0, repeats)["false"]
        add("false findings, effect differs between data sets", where, "at most 5 %", seen)
        where = f"4 data sets of 10, effects with SD {between:g} around 0"
        seen = findings((10,) * 4, between, 0.0, repeats)["false"]
        add(f"findings with the wrong sign, {few}", where, "at most 5 %", seen)
    seen = findings((10,) * 18, 0.05, 0.05, repeats)["above"]
    add("power, effect 0.05, SD 0.05 between data sets", "18 data sets of 10", "", seen)
    seen = findings((10,) * 8, 0.05, 0.05, repeats)["above"]
    add("power, effect 0.05, SD 0.05 between data sets", "8 data sets of 10", "", seen)
    contrary = []
    rng = np.random.default_rng(1)
    for _ in range(repeats):
        sets = np.repeat(np.arange(18), [10] * 17 + [1000])
        d = symmetric(rng, len(sets)) + np.where(sets == 17, -0.05, 0.05)
        found = infer(d, sets.astype(str))
        contrary.append(found["p"] < ALPHA and found["difference"] < 0)
    where = "17 data sets of 10 at +0.05, one of 1,000 at -0.05"
    add("one huge contrary data set decides", where, "at most 5 %", float(np.mean(contrary)))
    for patients, pictures in ((5, 10), (12, 10)):
        seen = several_pictures(patients, pictures, repeats)
        add("false findings, no effect", f"{patients} patients x {pictures} pictures", "at most 5 %", seen)
    for counts, where in (((24,), "1 data set of 24"), ((10,) * 8, "8 data sets of 10")):
        seen = best_of_designs(counts, 64, repeats)
        add("false findings, best of 64 equal designs against their mean", where, "at most 5 %", seen)
        seen = best_of_designs(counts, 32, repeats, HIGH_IOU)
        add(f"false findings, best of 32 designs at exactly {HIGH_IOU:g}", where, "at most 5 %", seen)
    for counts, where in (((20,), "1 data set of 20"), ((10,) * 8, "8 data sets of 10")):
        wrong, power = family(counts, 0.08, repeats)
        add("families of 6 with a false finding", where, "at most 5 %", wrong)
        add("power per true effect of 0.08 in a family of 6", where, "", power)
    for counts, where in (((20,), "1 data set of 20"), ((10,) * 8, "8 data sets of 10")):
        add(
            "equal within 0.05, true difference 0.05",
            where,
            "at most 5 %",
            equivalences(0.05, counts, repeats),
        )
        add("power of equal within 0.05, no difference", where, "", equivalences(0.0, counts, repeats))
    for counts, between, where in (
        ((6,), 0.0, "1 data set of 6"),
        ((20,), 0.0, "1 data set of 20"),
        ((10,) * 4, 0.05, "4 data sets of 10, SD 0.05 between"),
        ((10,) * 8, 0.05, "8 data sets of 10, SD 0.05 between"),
        (STUDY_COUNTS, 0.05, "18 data sets with the study's counts, SD 0.05 between"),
    ):
        seen = coverage(counts, between, repeats)
        add("95 % interval of an effect covers it", where, "at least 95 %", seen["effect"])
        add("95 % interval of a mean covers it, skewed values", where, "95 %", seen["mean"])
    return rows


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print("| promise | where | promised | seen |\n|---|---|---|---|")
    for promise, where, promised, seen in results(count):
        print(f"| {promise} | {where} | {promised} | {100 * seen:.1f} % |")
    within = 196 * np.sqrt(0.05 * 0.95 / count)
    print(f"\n{count} repeats; a share near 5 % is known to within {within:.1f} points.")
