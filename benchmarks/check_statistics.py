"""Simulate what the statistics promise: false verdicts, p values, coverage of intervals, power.

    python -m benchmarks.check_statistics [--repeats 1000] [--workers 1] [--out table.md]

Prints a Markdown table. Every row draws data whose truth is known many times over and asks the same
functions that the notebooks use. 2,000 repeats take some minutes on one core; the tests run the same
functions with fewer.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from medsam_nb.manifest.reading import load_manifest
from medsam_nb.protocol.designs import FRAME_CHOICES
from medsam_nb.protocol.table import as_table
from medsam_nb.provenance import project_root
from medsam_nb.statistics import mixed, paired, rankings, selection
from medsam_nb.statistics.declarations import Comparison
from medsam_nb.statistics.findings import finding
from medsam_nb.statistics.pairing import by_patient

MASKS_PER_VOLUME = 44  # of the one volumetric set of the study of which only the number of masks is known
ANY = Comparison("simulated", {}, {})
NO_FINDING = ("inconclusive", "of no practical weight")


# --- what is drawn ---------------------------------------------------------------------------------------


def skewed(rng: np.random.Generator, size: int) -> np.ndarray:
    """Differences of IoUs as they come: skewed, with mean 0 and standard deviation 0.1."""
    return (rng.gamma(2.0, 1.0, size) - 2.0) / np.sqrt(2.0) * 0.1


def symmetric(rng: np.random.Generator, size: int) -> np.ndarray:
    """Differences of two sides that are exchangeable: heavy tails, mean 0, standard deviation 0.1."""
    return rng.standard_t(3, size) / np.sqrt(3.0) * 0.1


def study_sizes(dimension: int = 0) -> list[int]:
    """Return the sizes of the study's 18 data sets as the manifest expects them, or of one dimension."""
    rows = load_manifest(project_root() / "data_manifest.yaml").data_sets
    of_study = [row for row in rows.values() if row.group == "study" and row.paper_name != "US-Nerve"]
    return [
        row.expected.cases or row.expected.study_masks // (1 if row.dimension == 2 else MASKS_PER_VOLUME)
        for row in of_study
        if dimension in (0, row.dimension)
    ]


def data_sets(
    rng: np.random.Generator,
    sizes: Sequence[int],
    effect: float = 0.0,
    between: float = 0.0,
    noise: Callable = skewed,
    pictures: int = 1,
    contrary: float | None = None,
) -> tuple[pd.DataFrame, float]:
    """Draw pairs, and return them with the mean effect of these very data sets.

    Parameters
    ----------
    sizes : sequence of int
        Patients of every data set.
    effect, between : float
        Mean and standard deviation of the effect over data sets (normal).
    noise : function of generator and number
        Of the patients.
    pictures : int
        Of a patient, which share its deviation and have another of a third of its size.
    contrary : float, optional
        The effect of the last data set, whatever the others have.
    """
    effects = effect + between * rng.standard_normal(len(sizes))
    if contrary is not None:
        effects[-1] = contrary
    d = np.repeat(effects, sizes) + noise(rng, sum(sizes))
    frame = pd.DataFrame({"data_set": np.repeat(np.arange(len(sizes)), sizes), "a": d, "b": 0.0})
    if pictures == 1:
        return frame, float(effects.mean())
    frame = frame.assign(patient_id=np.arange(len(frame)))
    frame = frame.loc[frame.index.repeat(pictures)].reset_index(drop=True)
    frame["a"] += rng.normal(0, 0.03, len(frame))
    return by_patient(frame.assign(case_id=np.arange(len(frame)))), float(effects.mean())


# --- what is asked ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """Data with a known truth, and what must rarely or often be found in them.

    Attributes
    ----------
    name : str
    options : mapping
        Of `data_sets`.
    comparison : Comparison
    truth : {"none", "general", "these"}
        Nothing may be found; the effect of data sets like these has the sign of `options["effect"]`; that of
        these very data sets has the sign it was drawn with.
    """

    name: str
    options: dict
    comparison: Comparison = ANY
    truth: str = "none"


def one_repeat(scenario: Scenario, number: int) -> dict:
    """Return what one draw shows: p below 0.05, a false finding, a right one, the interval on the truth."""
    rng = np.random.default_rng([number, *scenario.name.encode()])
    values, realised = data_sets(rng, **scenario.options)
    row = paired.compare_pairs(values, scenario.comparison)
    # a family of one: the correction changes nothing
    judged = row | {"p_holm": row["p"], "holm_low": row["ci_low"], "holm_high": row["ci_high"]}
    relation = {"equivalence": "=", "not_worse": ">="}.get(scenario.comparison.test, "!=")
    found, _ = finding(relation, judged, scenario.comparison.margin)
    general = scenario.options.get("effect", 0.0)
    truth = general if row["generalises_to"] == "data sets like these" else realised
    right = {"none": "", "general": "a is higher" if general > 0 else "b is higher"}
    right["these"] = "a is higher" if realised > 0 else "b is higher"
    if relation != "!=":
        right["general"] = {"=": "equivalent", ">=": "not worse"}[relation]
    claimed = found not in NO_FINDING and found not in ("not equivalent", "worse")
    return {
        "p": row["p"] < 0.05,
        "false": claimed and found != right[scenario.truth],
        "right": found == right[scenario.truth],
        "covered": row["ci_low"] <= truth <= row["ci_high"],
        "bounded": bool(np.isfinite(row["ci_low"])),
    }


def simulate(scenario: Scenario, repeats: int, spread: Callable = map) -> dict:
    """Return shares over repeats of what `one_repeat` shows; coverage among the intervals that exist."""
    seen = pd.DataFrame(list(spread(partial(one_repeat, scenario), range(repeats)))).astype(float)
    return {
        "p": seen["p"].mean(),
        "false": seen["false"].mean(),
        "right": float("nan") if scenario.truth == "none" else seen["right"].mean(),
        "coverage": seen.loc[seen["bounded"] > 0, "covered"].mean(),
    }


def scenarios() -> list[Scenario]:
    """Return every scenario of a single comparison."""
    study, volumes = study_sizes(), study_sizes(3)
    found = [
        Scenario(f"one data set, sides alike (heavy tails), {n} patients", {"sizes": [n], "noise": symmetric})
        for n in (8, 20, 50)
    ]
    found += [
        Scenario(
            "three data sets of 4, 20 and 60 patients, sides alike",
            {"sizes": [4, 20, 60], "noise": symmetric},
        ),
        Scenario(
            "five data sets of 1, 3, 3, 3 and 3 patients", {"sizes": [1, 3, 3, 3, 3], "noise": symmetric}
        ),
    ]
    for sizes, words in (
        ([10] * 6, "6 data sets of 10 patients"),
        ([10] * 8, "8 data sets of 10 patients"),
        (volumes, f"the study's {len(volumes)} volumetric data sets"),
        (study, f"the study's {len(study)} data sets"),
    ):
        found += [
            Scenario(f"{words}, mean effect 0, SD {sd:g} between them", {"sizes": sizes, "between": sd})
            for sd in (0.0, 0.03, 0.05, 0.08)
        ]
    found += [
        Scenario(
            "one data set, 5 patients with 10 pictures", {"sizes": [5], "pictures": 10, "noise": symmetric}
        ),
        Scenario(
            "one data set, 12 patients with 10 pictures", {"sizes": [12], "pictures": 10, "noise": symmetric}
        ),
        Scenario(
            "8 data sets of 5 patients with 10 pictures, SD 0.05",
            {"sizes": [5] * 8, "pictures": 10, "between": 0.05},
        ),
    ]
    found += [
        Scenario(
            f"effect {effect:g}, SD 0.05 between, {words}",
            {"sizes": sizes, "between": 0.05, "effect": effect},
            truth="general",
        )
        for effect in (0.05, 0.08)
        for sizes, words in (
            ([10] * 8, "8 data sets of 10"),
            (volumes, "12 volumetric"),
            (study, "the study's 18"),
        )
    ]
    found += [
        Scenario(f"effect 0.05, one data set, {n} patients", {"sizes": [n], "effect": 0.05}, truth="general")
        for n in (10, 20, 50)
    ]
    found += [
        Scenario(
            "17 data sets of 20 at +0.05, one of 1,000 at -0.05",
            {"sizes": [20] * 17 + [1000], "effect": 0.05, "contrary": -0.05},
            truth="general",
        ),
        Scenario(
            "three data sets of 20 at +0.05, one of 1,000 at -0.05",
            {"sizes": [20] * 3 + [1000], "effect": 0.05, "contrary": -0.05},
            truth="these",
        ),
        Scenario(
            "three data sets of 20, SD 0.05, said of these",
            {"sizes": [20] * 3, "between": 0.05},
            truth="these",
        ),
    ]
    for test, effect in (("equivalence", 0.05), ("not_worse", -0.05)):
        declared = Comparison("simulated", {}, {}, test=test, margin=0.05)
        found += [
            Scenario(
                f"{test.replace('_', ' ')} at its margin, {words}", options | {"effect": effect}, declared
            )
            for words, options in (
                ("one data set of 20", {"sizes": [20], "noise": symmetric}),
                ("12 data sets, SD 0.05", {"sizes": volumes, "between": 0.05}),
            )
        ]
        found += [
            Scenario(f"{test.replace('_', ' ')}, sides alike, {words}", options, declared, "general")
            for words, options in (
                ("one data set of 50", {"sizes": [50], "noise": symmetric}),
                ("12 data sets, SD 0.03", {"sizes": volumes, "between": 0.03}),
            )
        ]
    return found


def skewed_scenarios() -> list[Scenario]:
    """Return what is not promised: differences that are skewed, so that a mean of 0 is no symmetry."""
    return [
        *(
            Scenario(f"one data set, skewed with mean 0, {n} patients", {"sizes": [n]})
            for n in (10, 20, 50, 200)
        ),
        Scenario("12 data sets of one patient, skewed with mean 0", {"sizes": [1] * 12}),
    ]


# --- tests of several designs ----------------------------------------------------------------------------


def designs(rng: np.random.Generator, sizes: Sequence[int], k: int, between: float = 0.0) -> tuple:
    """Draw the values of k exchangeable designs; in each data set some are better by chance."""
    sets = np.repeat(np.arange(len(sizes)), sizes)
    own = between * rng.standard_normal((len(sizes), k))
    patients = rng.normal(0.5, 0.1, (len(sets), 1)) + rng.normal(0, 0.05, (len(sets), k))
    return patients + own[sets], sets.astype(str)


def best_design(sizes: Sequence[int], between: float, effect: float, number: int) -> bool:
    """Return whether the best of 24 designs is declared better than their mean (H10)."""
    rng = np.random.default_rng([number, 10])
    values, sets = designs(rng, sizes, 24, between)
    values[:, 0] += effect
    return selection.best_against_mean(values, sets, 199, number)[0].p < 0.05


def high_object(patients: int, noise: Callable, mean: float, number: int) -> bool:
    """Return whether the best of 32 designs with the same true mean is declared to be above 0.8 (H13)."""
    rng = np.random.default_rng([number, 13])
    shared = noise(rng, patients)[:, None]
    values = mean + shared + rng.normal(0, 0.04, (patients, 32))
    return selection.best_above(values, 0.8, 499, number)[0].p < 0.05


def left_skewed(rng: np.random.Generator, size: int) -> np.ndarray:
    """IoUs as they are near 0.8: few are much lower."""
    return -skewed(rng, size)


def as_rows(values: np.ndarray, sets: np.ndarray) -> pd.DataFrame:
    """Return patients and prompts as a tidy table of 3D values of whole cases."""
    frame = pd.DataFrame(values, columns=[f"p{n}" for n in range(values.shape[1])])
    frame = frame.assign(data_set=sets, case_id=np.arange(len(frame)).astype(str))
    rows = frame.melt(["data_set", "case_id"], var_name="prompt", value_name="value")
    return as_table(rows.assign(task="3d", metric="iou", value=rows["value"].clip(0, 1)))


def friedman(sizes: Sequence[int], between: float, number: int) -> bool:
    """Return whether Friedman's test tells exchangeable designs apart."""
    rng = np.random.default_rng([number, 6])
    return rankings.rank_designs(as_rows(*designs(rng, sizes, 6, between)), ["prompt"]).p < 0.05


def mixed_effect(sizes: Sequence[int], between: float, number: int) -> bool:
    """Return whether the mixed model finds an effect that is 0 over data sets like these."""
    rng = np.random.default_rng([number, 7])
    return bool(mixed.mixed_model(as_rows(*designs(rng, sizes, 2, between)), "prompt")["p"].iloc[0] < 0.05)


def families(sizes: Sequence[int], between: float, better: float, number: int) -> tuple[bool, float]:
    """Return, of all pairs of four frame choices, whether a false one was found, and the share of true ones.

    One of the four is better by `better`.
    """
    rng = np.random.default_rng([number, 4])
    values, sets = designs(rng, sizes, len(FRAME_CHOICES), between)
    values[:, -1] += better
    rows, intervals, true = [], [], []
    for first in range(4):
        for second in range(first):
            pairs = pd.DataFrame({"data_set": sets, "a": values[:, first], "b": values[:, second]})
            row, interval = paired.assess(pairs, ANY)
            rows.append(row | {"family": "one"})
            intervals.append(interval)
            true.append(first == 3 and better > 0)
    judged = paired.corrected(rows, intervals)
    found = [finding("!=", row)[0] not in NO_FINDING for row in judged.to_dict("records")]
    true, found = np.array(true), np.array(found)
    return bool(found[~true].any()), float(found[true].mean()) if true.any() else float("nan")


# --- the table -------------------------------------------------------------------------------------------


def results(repeats: int, spread: Callable = map) -> list[dict]:
    """Return one row per scenario: shares of p below 0.05, false findings, right findings, coverage."""
    rows = [{"scenario": one.name} | simulate(one, repeats, spread) for one in scenarios()]
    few = max(repeats // 4, 50)

    def share(function: Callable, *arguments: object, of: int = few) -> list:
        return list(spread(partial(function, *arguments), range(of)))

    for sizes, between, words in (
        ([20], 0.0, "one data set of 20"),
        ([10] * 8, 0.05, "8 data sets of 10, SD 0.05"),
        (study_sizes(3), 0.05, "the study's 12 volumetric data sets, SD 0.05"),
    ):
        none, some = (np.mean(share(best_design, sizes, between, effect)) for effect in (0.0, 0.1))
        name = f"H10: best of 24 exchangeable designs, {words} (power: one better by 0.1)"
        rows.append({"scenario": name, "p": none, "false": none, "right": some})
    for patients in (8, 20):
        none, some = (np.mean(share(high_object, patients, symmetric, mean)) for mean in (0.8, 0.9))
        name = f"H13: best of 32 designs, true mean 0.8, {patients} patients (power: 0.9)"
        rows.append({"scenario": name, "p": none, "false": none, "right": some})
    for sizes, between, words in (
        ([20], 0.0, "one data set of 20"),
        ([10] * 8, 0.05, "8 data sets of 10, SD 0.05"),
    ):
        any_false = np.mean([wrong for wrong, _ in share(families, sizes, between, 0.0)])
        power = np.mean([right for _, right in share(families, sizes, between, 0.08)])
        name = f"family of 6, no effect, {words} (power: one of four better by 0.08)"
        rows.append({"scenario": name, "false": any_false, "right": power})
    rows += [
        {
            "scenario": f"Friedman, exchangeable designs, {words}",
            "p": np.mean(share(friedman, sizes, between)),
        }
        for sizes, between, words in (
            ([20], 0.0, "20 patients"),
            ([10] * 8, 0.05, "8 data sets of 10, SD 0.05"),
        )
    ]
    rows += [
        {"scenario": f"mixed model, {words}, SD 0.05", "p": np.mean(share(mixed_effect, sizes, 0.05))}
        for sizes, words in (
            ([10] * 8, "8 data sets of 10"),
            (study_sizes(3), "the study's 12 volumetric data sets"),
        )
    ]
    rows.append({"scenario": NOT_PROMISED})
    rows += [{"scenario": one.name} | simulate(one, repeats, spread) for one in skewed_scenarios()]
    name = "H13: best of 32 designs, IoUs skewed to the left with true mean 0.8, {} patients"
    for patients in (8, 20):
        none = np.mean(share(high_object, patients, left_skewed, 0.8))
        rows.append({"scenario": name.format(patients), "p": none, "false": none})
    return rows


NOT_PROMISED = "**not promised: skewed differences whose mean is 0**"


def markdown(rows: Iterable[dict], repeats: int) -> str:
    """Return the table as it stands in the documentation."""

    def shown(row: dict, key: str) -> str:
        value = row.get(key, float("nan"))
        return "" if not np.isfinite(value) else f"{100 * value:.1f}"

    lines = [
        "| scenario | p < 0.05 | false findings | right findings | coverage |",
        "|---|---:|---:|---:|---:|",
    ]
    keys = ("p", "false", "right", "coverage")
    lines += [f"| {row['scenario']} | {' | '.join(shown(row, key) for key in keys)} |" for row in rows]
    error = 100 * 2 * np.sqrt(0.05 * 0.95 / repeats)
    lines += ["", f"Per cent of {repeats:,} repeats (of a quarter of them for tests of several designs); two"]
    lines += [f"standard errors of 5 % are {error:.1f} ({2 * error:.1f})."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=1, help="processes; one by default")
    parser.add_argument("--out", type=Path, help="where to write the table too")
    chosen = parser.parse_args()
    if chosen.workers > 1:
        with ProcessPoolExecutor(chosen.workers) as pool:
            found = results(chosen.repeats, partial(pool.map, chunksize=25))
    else:
        found = results(chosen.repeats)
    table = markdown(found, chosen.repeats)
    print(table)
    if chosen.out:
        chosen.out.write_text(table, encoding="utf-8")
