"""What a sample of differences says, and of whom: one statistic for estimate, interval, p and sign.

The statistic is the mean difference in which every data set weighs the same. What is taken as drawn by
chance depends on how many data sets there are:

- from `FEWEST_DATA_SETS` on, the data sets, each with one value, the mean over its patients: the statement is
  about data sets like these;
- below, the patients within the data sets at hand: the statement is about these data sets only.

The test is exact, by changes of sign (`signs.mean_sign_change`): where there is no difference, a coin
decides the sign of what was drawn. Six to eleven data sets have too few signs for a level that is corrected
for other tests (2 / 2^8 = 0.008); there it is the t test of their means, which keeps its level although
means are of unequal precision (Bakirov and Szekely 2005; Ibragimov and Mueller 2010).

The interval holds the values that the test does not reject, so it leaves 0 exactly where p is below the
level. How often either errs is simulated by `benchmarks/check_statistics.py`.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats as scipy_stats

from medsam_nb.statistics.signs import ROUND, mean_interval, mean_sign_change

ALPHA = 0.05
FEWEST_DATA_SETS = 6  # from this number on data sets are the unit that was drawn
SIGNS_FROM = 12  # data sets whose changes of sign suffice: 2 / 2^12 is 0.05 over a hundred tests
# Fewer patients cannot reach p < 0.05 by changes of sign: 2 / 2^5 and 1 / 2^4 are more.
FEWEST_UNITS = {"two-sided": 6, "greater": 5, "less": 5}
GENERAL = "data sets like these"
WITHIN = {"this data set", "these data sets"}


@dataclass(frozen=True, eq=False)
class Sample:
    """One value per unit (a patient, or a published object), and the data set of each.

    Attributes
    ----------
    values : ndarray, shape (n,)
        Differences, or measurements whose mean is wanted.
    data_sets : ndarray of str, shape (n,)
    """

    values: np.ndarray
    data_sets: np.ndarray

    @cached_property
    def _membership(self) -> tuple[np.ndarray, np.ndarray]:
        """The place of every unit's data set among their names, and the size of each."""
        _, member = np.unique(np.asarray(self.data_sets, str), return_inverse=True)
        return member, np.bincount(member)

    @property
    def n_data_sets(self) -> int:
        """How many data sets there are."""
        return len(self._membership[1]) if len(self.values) else 0

    @property
    def sizes(self) -> np.ndarray:
        """Units of every data set, by name."""
        return self._membership[1] if len(self.values) else np.zeros(0, int)

    @cached_property
    def set_means(self) -> np.ndarray:
        """The mean of every data set, by name, without rounding noise."""
        member, sizes = self._membership
        return np.round(np.bincount(member, self.values) / sizes, ROUND) if len(self.values) else np.zeros(0)

    @property
    def general(self) -> bool:
        """Whether data sets are the unit of inference."""
        return self.n_data_sets >= FEWEST_DATA_SETS

    @property
    def units(self) -> np.ndarray:
        """What the inference takes as drawn: means of data sets, or values of patients."""
        return self.set_means if self.general else np.asarray(self.values, float)

    @property
    def weights(self) -> np.ndarray:
        """The weight of every unit in the estimate; they add up to 1."""
        if self.general:
            return np.full(self.n_data_sets, 1 / self.n_data_sets)
        member, sizes = self._membership
        return 1 / (sizes[member] * len(sizes))

    @property
    def estimate(self) -> float:
        """The mean in which every data set weighs the same."""
        return float(self.set_means.mean()) if len(self.values) else float("nan")

    @property
    def generalises_to(self) -> str:
        """Of whom the inference speaks, in words."""
        if not len(self.values):
            return ""
        if self.general:
            return GENERAL
        if len(self.values) < FEWEST_UNITS["greater"]:
            return "these alone"
        return "this data set" if self.n_data_sets == 1 else "these data sets"

    @property
    def method(self) -> str:
        """The test, in words; {units} stands for what patients or objects are called."""
        if not self.general:
            strata = f" within {self.n_data_sets} data sets" if self.n_data_sets > 1 else ""
            return f"sign-change test of the mean over {len(self.values)} {{units}}{strata}"
        return (
            f"{'t' if self.studentised else 'sign-change'} test of the means of {self.n_data_sets} data sets"
        )

    @property
    def studentised(self) -> bool:
        """Whether the test is a t test; equal means have no spread to measure by, but signs."""
        return self.general and self.n_data_sets < SIGNS_FROM and float(np.ptp(self.set_means)) > 10.0**-ROUND

    def p(self, alternative: str = "two-sided", null: float = 0.0) -> float:
        """Return p of the test that the mean is `null`; NaN for fewer than two units."""
        if len(self.values) < 2:
            return float("nan")
        if self.studentised:
            return float(scipy_stats.ttest_1samp(self.set_means, null, alternative=alternative).pvalue)
        return mean_sign_change(self.units, self.weights, null, alternative)

    def interval(self, level: float = 1 - ALPHA) -> tuple[float, float]:
        """Return the values that the two-sided test at 1 - `level` does not reject.

        NaN limits where there are too few units for any value to be rejected.
        """
        if len(self.values) < 2:
            return float("nan"), float("nan")
        if not self.studentised:
            return mean_interval(self.units, self.weights, level)
        k = self.n_data_sets
        reach = scipy_stats.t.ppf((1 + level) / 2, k - 1) * self.set_means.std(ddof=1) / np.sqrt(k)
        return self.estimate - float(reach), self.estimate + float(reach)
