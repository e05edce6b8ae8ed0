"""What corrections give for their effort: curves, areas, numbers of clicks, gains, by patient.

From rows of corrections (tasks "2d_clicks" and "3d_loops"). A curve that ended early stays where it was, at
the effort that was made; how many ended, and why, is counted (`reasons`). Means are taken as everywhere:
slices, objects, cases, patients, data sets of equal weight, with intervals over patients.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from medsam_nb.errors import StudyError
from medsam_nb.protocol import effort
from medsam_nb.protocol.corrections import CLICKS, FRESH, RESTARTED, RUNNING
from medsam_nb.protocol.table import FACTORS
from medsam_nb.statistics.inference import ALPHA
from medsam_nb.statistics.paired import summarise
from medsam_nb.statistics.pooling import case_means, check_table, of_metric, patient_means

# What tells curves apart within a slice (in 3D within an object, whose slices go together).
CURVE = [name for name in FACTORS if name != "loop"]
STRATEGIES = (CLICKS, RUNNING, FRESH)
CASE = ["data_set", "patient_id", "case_id"]


def continued_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of corrections with every curve as long as the longest of its kind.

    A repeated row has the value and the number of prompts of the last one. What a fresh predictor makes of
    the running one's prompts stands after the last loop only, and is left out.

    Parameters
    ----------
    table : DataFrame
        The tidy table; rows of other tasks are passed over.
    """
    rows = check_table(table)
    rows = rows[rows["strategy"].isin(STRATEGIES)]
    if rows.empty:
        return rows
    place = [*CASE, "object", "slice_index", "metric"]
    longest = rows.groupby(CURVE, dropna=False)["loop"].transform("max")
    last = rows["loop"] == rows.groupby([*place, *CURVE], dropna=False)["loop"].transform("max")
    short = rows[last].assign(missing=(longest - rows["loop"])[last].astype(int))
    short = short[short["missing"] > 0]
    further = short.loc[short.index.repeat(short["missing"])]
    step = further.groupby(level=0).cumcount() + 1
    further = further.assign(loop=further["loop"] + step.to_numpy()).drop(columns="missing")
    return pd.concat([rows, further], ignore_index=True).drop(columns="failed")


def curves(table: pd.DataFrame, by: Sequence[str], metric: str = "iou") -> pd.DataFrame:
    """Return the mean of every loop with its interval, a curve for each combination of `by`.

    Parameters
    ----------
    table : DataFrame
        Rows of one task of corrections.
    by : sequence of str
        Such as ``["model", "prompt"]``; what is not named is averaged over.
    metric : {"iou", "dice"}

    Returns
    -------
    DataFrame
        Columns of `by`, `loop`, `mean`, `ci_low`, `ci_high`, `n_patients`, `n_cases`, `n_data_sets`.
    """
    cells = [*by, "loop"]
    means = case_means(continued_rows(table), cells, metric)
    return summarise(means, cells).sort_values(cells, ignore_index=True)


def _of_cases(table: pd.DataFrame, by: Sequence[str], metric: str) -> pd.DataFrame:
    """Return one row per case and curve: `values` by loop, and `prompts` given up to each."""
    rows = of_metric(continued_rows(table), metric)
    cells = [*CASE, "object", *by]
    rows = rows.astype({"value": float, "n_prompts": float})
    for kept in ([*cells, "loop"], [*CASE, *by, "loop"]):
        rows = rows.groupby(kept, dropna=False)[["value", "n_prompts"]].mean().reset_index()
    found = [
        dict(zip([*CASE, *by], key, strict=True))
        | {"values": curve["value"].to_numpy(), "prompts": curve["n_prompts"].to_numpy()}
        for key, curve in rows.sort_values("loop").groupby([*CASE, *by], dropna=False)
    ]
    return pd.DataFrame(found, columns=[*CASE, *by, "values", "prompts"])


def areas(table: pd.DataFrame, by: Sequence[str], metric: str = "iou") -> pd.DataFrame:
    """Return the mean area under the curves, with its interval over patients (`effort.area_under_curve`).

    Parameters are those of `curves`; the area of a case's mean curve is the mean of its curves' areas.
    """
    cases = _of_cases(table, by, metric)
    cases = cases.assign(value=cases["values"].map(effort.area_under_curve)).drop(
        columns=["values", "prompts"]
    )
    return summarise(cases, list(by))


def clicks_to_reach(
    table: pd.DataFrame, by: Sequence[str], targets: Sequence[float] = effort.TARGETS
) -> pd.DataFrame:
    """Return how many prompts slices took to reach each target IoU, and how many never did.

    Parameters
    ----------
    table : DataFrame
        Rows of the task "2d_clicks".
    by : sequence of str
    targets : sequence of float

    Returns
    -------
    DataFrame
        Columns of `by`, `target`, `n` (objects on slices), `reached`, `unreached`, `limit` (prompts that were
        allowed), `noc_reached` (mean over those that reached it) and `noc`, in which those that did not
        count with the limit, as the interactive benchmarks report it.
    """
    rows = continued_rows(table)
    rows = rows[(rows["metric"] == "iou") & (rows["strategy"] == CLICKS)].astype({"value": float})
    cells = list(dict.fromkeys([*by, *CASE, "object", "slice_index", *CURVE]))
    found = []
    for key, group in rows.groupby(list(by), dropna=False):
        curves_of = [
            curve["value"].to_numpy() for _, curve in group.sort_values("loop").groupby(cells, dropna=False)
        ]
        limit = max(map(len, curves_of))
        for target in targets:
            numbers = [effort.number_of_clicks(values, target) for values in curves_of]
            reached = [number for number in numbers if number is not None]
            found.append(
                dict(zip(by, key, strict=True))
                | {
                    "target": target,
                    "n": len(numbers),
                    "reached": len(reached),
                    "unreached": len(numbers) - len(reached),
                    "limit": limit,
                    "noc_reached": float(np.mean(reached)) if reached else float("nan"),
                    "noc": float(np.mean([limit if number is None else number for number in numbers])),
                }
            )
    columns = ["target", "n", "reached", "unreached", "limit", "noc_reached", "noc"]
    return pd.DataFrame(found, columns=[*by, *columns])


def seconds_spent(
    prompts: np.ndarray, initial: str, information: str, seconds: Mapping[str, float]
) -> np.ndarray:
    """Return the seconds up to each loop: the initial prompts, and the corrections after them.

    Parameters
    ----------
    prompts : ndarray, shape (loops + 1,)
        Given up to each loop.
    initial, information : str
        Kinds of the first ones and of the others.
    seconds : mapping of kind to float

    Raises
    ------
    StudyError
        If a kind has no seconds.
    """
    for kind in (initial, information):
        if kind not in seconds:
            raise StudyError("seconds_per_prompt", f"says nothing of {kind}.", "Write the seconds it takes.")
    return prompts[0] * seconds[initial] + (prompts - prompts[0]) * seconds[information]


def with_effort(table: pd.DataFrame, by: Sequence[str], seconds: Mapping[str, float]) -> pd.DataFrame:
    """Return `curves` with the mean effort up to every loop: `n_prompts` and `seconds` for an object.

    Parameters
    ----------
    table : DataFrame
        Rows of one task of corrections.
    by : sequence of str
        Among them `prompt` and `new_information`.
    seconds : mapping of kind of prompt to float
        What giving one takes.
    """
    found = curves(table, by)
    cases = _of_cases(table, by, "iou")
    for name in ("n_prompts", "seconds"):
        spent = [
            row.prompts
            if name == "n_prompts"
            else seconds_spent(row.prompts, row.prompt, row.new_information, seconds)
            for row in cases.itertuples()
        ]
        long = cases.drop(columns=["values", "prompts"]).assign(value=spent).explode("value")
        long["loop"] = long.groupby(level=0).cumcount()
        means = patient_means(long.astype({"value": float}), [*by, "loop"])
        means = means.groupby([*by, "loop", "data_set"])["value"].mean().groupby([*by, "loop"]).mean()
        found = found.merge(means.rename(name).reset_index(), on=[*by, "loop"])
    return found


def _as_it_ends(table: pd.DataFrame) -> pd.DataFrame:
    """Return rows in which a running predictor's last loop is what a fresh one makes of all its prompts.

    With that the algorithm ends, and it is what claim H8 tests.
    """
    ends = table["strategy"] == RESTARTED
    place = [*CASE, "object", "slice_index", "metric", *CURVE, "loop"]
    both = pd.concat([table[ends].assign(strategy=RUNNING), table[~ends]], ignore_index=True)
    return both.drop_duplicates(place)


def gains(
    table: pd.DataFrame,
    seconds: Mapping[str, float],
    by: Sequence[str] = ("strategy", "new_information"),
    metric: str = "iou",
) -> pd.DataFrame:
    """Return what corrections gained, and what for each further prompt and each further minute.

    Parameters
    ----------
    table : DataFrame
        Rows of one model and one task of corrections.
    seconds : mapping of kind of prompt to float
        What giving one takes.
    by : sequence of str

    Returns
    -------
    DataFrame
        Columns of `by`, `prompt` (the initial one); `before`, `after` (of the running predictor: of the fresh
        one with which it ends), `gain` with `ci_low`, `ci_high` (95 % over patients) and `corrected_low`,
        `corrected_high` (Bonferroni, for the gains after one initial prompt); `further_prompts` and
        `further_seconds` (means over cases); `gain_per_prompt` and `gain_per_minute` (the mean gain over the
        mean effort, so that a case without a correction is no division by 0); `n_patients`, `n_cases`,
        `uncorrected` (cases in which nothing could be corrected).
    """
    by = list(dict.fromkeys(["prompt", *by, "new_information"]))
    cases = _of_cases(_as_it_ends(table), by, metric)
    spent = [
        seconds_spent(row.prompts, row.prompt, row.new_information, seconds) for row in cases.itertuples()
    ]
    ends = pd.DataFrame(
        {
            "before": [values[0] for values in cases["values"]],
            "after": [values[-1] for values in cases["values"]],
            "further_prompts": [given[-1] - given[0] for given in cases["prompts"]],
            "further_seconds": [each[-1] - each[0] for each in spent],
        },
        index=cases.index,
    )
    cases = cases.drop(columns=["values", "prompts"]).join(ends)
    gained = cases.assign(value=cases["after"] - cases["before"])
    found = summarise(gained, by).rename(columns={"mean": "gain"}).set_index(by)
    tests = max(found.groupby(level="prompt").size(), default=1)
    corrected = summarise(gained, by, 1 - ALPHA / tests).set_index(by)
    found["corrected_low"], found["corrected_high"] = corrected["ci_low"], corrected["ci_high"]
    for name in ends:
        means = patient_means(cases.assign(value=cases[name]), by)
        found[name] = means.groupby([*by, "data_set"])["value"].mean().groupby(by).mean()
    found["uncorrected"] = cases["further_prompts"].eq(0).groupby([cases[name] for name in by]).sum()
    found = found.reset_index()
    for unit, name in ((1, "prompt"), (60, "minute")):
        made = found["further_prompts" if name == "prompt" else "further_seconds"]
        found[f"gain_per_{name}"] = [
            effort.gain_per_effort([0, gain], [0, made / unit])
            for gain, made in zip(found["gain"], made, strict=True)
        ]
    columns = ["before", "after", "gain", "ci_low", "ci_high", "corrected_low", "corrected_high"]
    columns += ["further_prompts", "further_seconds"]
    columns += ["gain_per_prompt", "gain_per_minute", "n_patients", "n_cases", "uncorrected"]
    return found[[*by, *columns]]


def reasons(table: pd.DataFrame) -> pd.DataFrame:
    """Return how many curves ended before their limit, by strategy, new information and reason.

    In 2D a curve is that of an object on a slice, in 3D that of an object.
    """
    rows = check_table(table)
    rows = rows[rows["strategy"].isin(STRATEGIES)]
    place = [*CASE, "object", *CURVE]
    clicked = rows["strategy"] == CLICKS
    told = rows["ended"].astype(object).where(rows["ended"].notna(), "")
    rows = rows.assign(place=rows["slice_index"].where(clicked, 0), ended=told)
    ends = rows.groupby([*place, "place"], dropna=False)["ended"].max().reset_index()
    by = ["strategy", "new_information"]
    counts = ends.assign(reason=ends["ended"].replace("", "the limit was reached"))
    return counts.groupby([*by, "reason"]).size().rename("curves").reset_index()
