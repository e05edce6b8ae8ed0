"""One p and one interval for one test: where a claim asks what the study declares as a comparison too.

Such a test counts in one family only, that of the declared comparison; the claims' board takes its corrected
p and interval from there. Otherwise the same difference would stand in two tables with two p values.
"""

import numpy as np
import pandas as pd

SAME = {"rtol": 1e-6, "atol": 1e-9}
TAKEN = ("p_holm", "holm_level", "n_tests", "family")


def find(tests: pd.DataFrame, declared: pd.DataFrame) -> dict[int, tuple[int, bool]]:
    """Return which tests are declared comparisons too.

    Two tests are one if units, effect, interval, its level and the uncorrected p agree; the sides may be
    the other way round.

    Parameters
    ----------
    tests : DataFrame
        `n`, `difference`, `ci_low`, `ci_high`, `ci_level`, `p`.
    declared : DataFrame
        Of `paired.compare`.

    Returns
    -------
    dict
        From the place in `tests` to that in `declared`, and whether the sides are turned.
    """
    found = {}
    usable = declared[declared["p"].notna()] if len(declared) else declared
    for place, test in tests.iterrows():
        if pd.isna(test["p"]) or not np.isfinite(float(test["p"])):
            continue
        for other, row in usable.iterrows():
            if test["n"] != row["n"]:
                continue
            level = np.isclose(float(test["ci_level"]), float(row["ci_level"]), **SAME)
            if level and np.isclose(float(test["p"]), float(row["p"]), **SAME):
                mine, its = (_effect(one) for one in (test, row))
                turned = (-its[0], -its[2], -its[1])
                if np.allclose(mine, its, equal_nan=True, **SAME):
                    found[place] = (other, False)
                elif np.allclose(mine, turned, equal_nan=True, **SAME):
                    found[place] = (other, True)
            if place in found:
                break
    return found


def _effect(row: pd.Series) -> tuple[float, float, float]:
    return float(row["difference"]), float(row["ci_low"]), float(row["ci_high"])


def take(tests: pd.DataFrame, declared: pd.DataFrame, twins: dict[int, tuple[int, bool]]) -> None:
    """Give tests the corrected p and interval of the declared comparisons that they are; in place."""
    for place, (other, turned) in twins.items():
        row = declared.loc[other]
        for column in TAKEN:
            tests.loc[place, column] = row[column]
        low, high = float(row["holm_low"]), float(row["holm_high"])
        tests.loc[place, ["holm_low", "holm_high"]] = [-high, -low] if turned else [low, high]
