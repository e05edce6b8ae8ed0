"""What corrections cost and give: measures of a curve of quality over corrections.

A curve is a sequence of IoUs or Dice values: the first after the initial prompt, each further one after one
more correction.
"""

from collections.abc import Sequence

import numpy as np

TARGETS = (0.80, 0.85, 0.90)  # of the number of clicks, as the interactive benchmarks report it


def area_under_curve(values: Sequence[float]) -> float:
    """Return the area under a curve by the trapezoidal rule, divided by its length: between 0 and 1.

    Of a single value it is that value.

    Examples
    --------
    >>> area_under_curve([0.5, 0.7, 0.9]), area_under_curve([0.4])
    (0.7, 0.4)
    """
    values = np.asarray(values, float)
    return float(np.trapezoid(values) / (len(values) - 1)) if len(values) > 1 else float(values[0])


def number_of_clicks(values: Sequence[float], target: float) -> int | None:
    """Return how many prompts it took to reach a target for the first time; None if it was not reached.

    The initial prompt counts as one, so that with a first point it is the number of clicks (NoC) of the
    interactive benchmarks (Xu et al., CVPR 2016). These report the limit for what was not reached; here it
    stays apart, to be counted.

    Examples
    --------
    >>> number_of_clicks([0.5, 0.81, 0.79], 0.8), number_of_clicks([0.5, 0.6], 0.8)
    (2, None)
    """
    reached = np.flatnonzero(np.asarray(values, float) >= target)
    return int(reached[0]) + 1 if len(reached) else None


def gain_per_effort(values: Sequence[float], effort: Sequence[float]) -> float:
    """Return what a curve gained from its first to its last value for each unit of effort in between.

    Parameters
    ----------
    values : sequence of float
    effort : sequence of float
        Spent up to each value, in any unit: prompts, or seconds.

    Returns
    -------
    float
        NaN where no effort was made after the first value.

    Examples
    --------
    >>> gain_per_effort([0.5, 0.6, 0.9], [2, 4, 6])
    0.1
    """
    spent = float(effort[-1]) - float(effort[0])
    return (float(values[-1]) - float(values[0])) / spent if spent > 0 else float("nan")
