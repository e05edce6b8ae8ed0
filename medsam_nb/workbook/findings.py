"""What was found, in sentences: computed from tables, for notebooks and the top of the report."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medsam_nb.figures.order import in_order
from medsam_nb.figures.words import counted, label
from medsam_nb.protocol.corrections import RUNNING
from medsam_nb.protocol.designs import DESIGN_FACTORS
from medsam_nb.statistics.change_point import ChangePoint
from medsam_nb.statistics.findings import OPEN, TINY
from medsam_nb.statistics.inference import ALPHA, GENERAL, WITHIN
from medsam_nb.statistics.paired import summarise

SHOWN_OBJECTS, SHOWN_SETS = 6, 8  # by name in a sentence


def usable_cases(cases: pd.DataFrame) -> str:
    """Return how many cases of a case table can be used, and what became of the others."""
    states = cases["status"].value_counts()
    usable, failed, healthy = (int(states.get(state, 0)) for state in ("ok", "failed", "no_object"))
    formats = int((~cases["accuracy"] & (cases["status"] == "ok")).sum())
    text = f"{usable} of {counted(len(cases), 'case')} can be used"
    text += f"; {failed} could not be read or do not fit their row" if failed else ""
    text += f"; {healthy} hold no object" if healthy else ""
    text += f"; {formats} only show a format and are not measured" if formats else ""
    sets = cases[cases["status"] == "ok"].groupby("data_set", sort=False).size()
    named = ", ".join(f"{label(name)} {number}" for name, number in sets.iloc[:SHOWN_SETS].items())
    further = f" and {len(sets) - SHOWN_SETS} more" if len(sets) > SHOWN_SETS else ""
    return f"{text}: {named}{further}." if len(sets) else f"{text}."


def best_prompts(means: pd.DataFrame) -> str:
    """Return, for every model, the 2D prompts with the highest and the lowest mean IoU, with intervals.

    Parameters
    ----------
    means : DataFrame
        Columns `model`, `data_set`, `case_id`, `prompt`, `value`: one value per case and prompt.
    """
    parts = []
    for model in in_order(means["model"].unique()):
        group = means[means["model"] == model]
        ranked = summarise(group, ["prompt"]).sort_values("mean", ascending=False)
        best, last = ranked.iloc[0], ranked.iloc[-1]
        text = f"{label(model)} has its highest mean IoU with {label(best['prompt'])}, {_mean(best)}"
        text += f"; its lowest with {label(last['prompt'])}, {_mean(last)}" if len(ranked) > 1 else ""
        parts.append(text)
    return f"{'. '.join(part[0].upper() + part[1:] for part in parts)} ({_cases(means)})."


def _mean(row: pd.Series) -> str:
    """Return a mean with its interval, with two decimals; no interval where there are too few units."""
    known = np.isfinite([row["ci_low"], row["ci_high"]]).all()
    return f"{row['mean']:.2f}" + (f" ({row['ci_low']:.2f} to {row['ci_high']:.2f})" if known else "")


def cost_of_not_knowing(means: pd.DataFrame) -> str:
    """Return how much IoU is lost by keeping the first or the most confident mask instead of the best one.

    Parameters
    ----------
    means : DataFrame
        Columns `model`, `mask_choice`, `value`.
    """
    parts = []
    for model in in_order(means["model"].unique()):
        group = means[means["model"] == model]
        kept = _equal(group, "mask_choice")
        if not {"first_mask", "most_confident_mask", "oracle_mask"} <= set(kept.index):
            continue
        losses = [
            f"{kept['oracle_mask'] - kept[f'{which}_mask']:.2f}" for which in ("first", "most_confident")
        ]
        parts.append(
            f"{label(model)} loses {losses[0]} IoU with the first mask, {losses[1]} with the most confident"
        )
    return f"Against the best of the three candidates, {'; '.join(parts)}." if parts else ""


def best_designs(ranked: pd.DataFrame, model: str) -> str:
    """Return the best design of a model in 3D, the best that needs no mask, and the worst.

    Parameters
    ----------
    ranked : DataFrame
        Of `rankings.designs_by_mean`, best first.
    """
    of_model = ranked[ranked["model"] == model].rename(columns={"mean IoU": "mean"})
    best, worst = of_model.iloc[0], of_model.iloc[-1]
    text = f"Of {counted(len(of_model), 'design')} the highest mean IoU with {label(model)} is that of "
    text += f"{design_words(best)}: {_mean(best)}"
    drawn = of_model[of_model["prompt"] != "mask"]
    if best["prompt"] == "mask" and len(drawn):
        other = drawn.iloc[0]
        text += f"; without true masks as prompts, of {design_words(other)}: {_mean(other)}"
    return (
        f"{text}; the lowest of {design_words(worst)}: {_mean(worst)} "
        f"({counted(int(best['patients']), 'case')}). "
        "Which of these choices matter is tested under Statistics."
    )


def best_slices(ranked: pd.DataFrame, model: str) -> str:
    """Return for every prompt in 3D on which single slice it has the highest and the lowest mean.

    Parameters
    ----------
    ranked : DataFrame
        Of `rankings.designs_by_mean`.
    model : str
    """
    of_model = ranked[(ranked["model"] == model) & (ranked["frame_choice"] != "three_slices")]
    parts = []
    for prompt, group in of_model.groupby("prompt", sort=False):
        means = group.groupby("frame_choice")["mean IoU"].mean().sort_values()
        if len(means) > 1:
            best, worst = (f"{label(means.index[at])} {means.iloc[at]:.2f}" for at in (-1, 0))
            parts.append(f"{label(prompt)}: {best} ({worst})")
    if not parts:
        return ""
    return f"If one slice is prompted, the best (worst), over directions and masks: {'; '.join(parts)}."


def objects_and_parts(rows: pd.DataFrame) -> str:
    """Return which objects were propagated, and how often a prompt of one part cannot tell of all of them.

    Parameters
    ----------
    rows : DataFrame
        3D rows.
    """
    names = list(dict.fromkeys(rows["object"]))
    text = f"Objects: {', '.join(map(label, names[:SHOWN_OBJECTS]))}"
    text += f" and {len(names) - SHOWN_OBJECTS} more. " if len(names) > SHOWN_OBJECTS else ". "
    prompted = rows[rows["distance_slices"].eq(0) & rows["n_components"].notna()]
    slices = prompted.drop_duplicates(["data_set", "case_id", "object", "slice_index"])
    several = int((slices["n_components"].astype(int) > 1).sum())
    if several:
        where = f"On {several} of {counted(len(slices), 'prompted slice')} the object has several components"
        text += f"{where}: there a point or a box tells of the largest only, a mask of all."
    return text.strip()


def design_words(row: pd.Series) -> str:
    """Return a design as it is said: prompt, slice, direction, mask."""
    frame, prompt, direction, mask = (label(row[factor]) for factor in DESIGN_FACTORS)
    return f"{prompt} on {'the ' if not frame.startswith('three') else ''}{frame}, {direction}, {mask}"


def decay(drawn: pd.DataFrame) -> str:
    """Return how the IoU changes from next to the prompt to the farthest distance that all cases have.

    Parameters
    ----------
    drawn : DataFrame
        Of `distance.iou_by_distance`: `direction`, `distance_slices`, `mean`, `n_cases`.
    """
    if drawn.empty:
        return "No slice lies away from a prompted one."
    parts = []
    for direction, line in drawn.groupby("direction"):
        line = line.assign(reach=line["distance_slices"].abs())
        line = line[line["n_cases"] == line["n_cases"].max()]  # fewer cases are other cases
        ends = [
            line.loc[line["reach"] == reach, "mean"].mean() for reach in (line.reach.min(), line.reach.max())
        ]
        parts.append(
            f"{label(direction)} from {ends[0]:.2f} to {ends[1]:.2f} "
            f"{counted(int(line['reach'].max()), 'slice')} away"
        )
    cases = counted(int(drawn["n_cases"].max()), "case")
    return f"From next to the prompt to as far as all {cases} reach, the mean IoU goes: {'; '.join(parts)}."


def clicks_help(drawn: pd.DataFrame, reached: pd.DataFrame, model: str) -> str:
    """Return what clicks on single slices do, and how often they reach the highest target.

    Parameters
    ----------
    drawn : DataFrame
        Of `effort.curves` by `model` and `prompt`.
    reached : DataFrame
        Of `effort.clicks_to_reach` by the same.
    model : str
        Whose curves.
    """
    parts = []
    for prompt, curve in drawn[drawn["model"] == model].groupby("prompt", sort=False):
        first, last = curve.iloc[0], curve.iloc[-1]
        text = f"after {label(prompt)} the mean IoU goes from {first['mean']:.2f} to {last['mean']:.2f} "
        text += f"with {counted(int(last['loop']), 'click')}"
        rows = reached[(reached["model"] == model) & (reached["prompt"] == prompt)]
        for row in rows[rows["target"] == rows["target"].max()].itertuples():
            text += f" ({row.target:g} is reached on {row.reached} of {row.n} objects on slices"
            text += (
                f", there with {row.noc_reached:.1f} prompts on average; {row.noc:.1f} over all, if those "
                f"that never reach it count {row.limit})"
                if row.reached
                else ")"
            )
        parts.append(text)
    return f"{label(model)}: {'; '.join(parts)}." if parts else ""


def corrections_help(gained: pd.DataFrame) -> str:
    """Return what each new information gains in volumes, by strategy, with corrected intervals.

    Parameters
    ----------
    gained : DataFrame
        Of `effort.gains`, one model and one initial prompt.
    """
    parts, raising, tested = [], {}, 0
    for row in gained.itertuples():
        known = row.corrected_low == row.corrected_low
        interval = f" ({row.corrected_low:+.2f} to {row.corrected_high:+.2f})" if known else ""
        strategy = "the running predictor" if row.strategy == RUNNING else "fresh starts"
        parts.append(f"{label(row.new_information)} with {strategy} {row.gain:+.2f}{interval}")
        tested += known
        if row.corrected_low > 0:
            raising.setdefault(label(row.new_information), []).append(strategy)
    if not parts:
        return "No volume was corrected."
    start = f"from {gained['before'].iloc[0]:.2f} after {label(gained['prompt'].iloc[0])}"
    said = f"Change of the mean IoU of volumes by corrections, {start}: {'; '.join(parts)}."
    if not tested:
        return said
    ways = gained["strategy"].nunique()
    shown = [name if len(by) == ways else f"{name} (only with {by[0]})" for name, by in raising.items()]
    return f"{said} Shown to raise it, corrected for their number: {', '.join(shown) or 'none'}."


def verdicts(board: pd.DataFrame) -> str:
    """Return how many of the claims of a scoreboard got which verdict."""
    counts = board.drop_duplicates("claim")["verdict"].value_counts()
    return ", ".join(f"{n} {verdict}" for verdict, n in counts.items())


def comparisons_made(result: pd.DataFrame, names: Sequence[str] = ()) -> str:
    """Return which declared comparisons have a finding after correction, and in which direction."""
    tested = result[result["p_holm"].notna()]
    clear = tested[~tested["finding"].isin([OPEN, TINY])]
    text = f"{len(tested)} of {counted(len(result), 'comparison')} could be tested; "
    if clear.empty:
        return f"{text}after correction none has a finding."
    said = [
        f"{label(row.comparison)}{f' ({label(row.level)})' if row.level else ''} {row.difference:+.2f}"
        for row in clear.itertuples()
    ]
    return f"{text}after correction {len(clear)} have a finding (mean paired difference): {'; '.join(said)}."


def reach_of(result: pd.DataFrame) -> str:
    """Return what comparisons or claims generalise to, in a sentence."""
    levels = set(result.loc[result["n"] > 0, "generalises_to"])
    if levels == {GENERAL}:
        return "Data sets are the units: what is found holds for data sets like these."
    if levels & WITHIN:
        return "With fewer than six data sets, what is found holds within these data sets, not for others."
    return "There are too few units for any test."


def _cases(means: pd.DataFrame) -> str:
    return counted(means.groupby(["data_set", "case_id"]).ngroups, "case")


def _equal(means: pd.DataFrame, by: str) -> pd.Series:
    """Return the mean of every level with data sets of equal weight."""
    return means.groupby([by, "data_set"])["value"].mean().groupby(by).mean()


def memory_needed(result: pd.DataFrame) -> str:
    """Return which memory windows are shown to lose against the released one, and what the shortest costs.

    Parameters
    ----------
    result : DataFrame
        Of `paired.compare`; a comparison per window, named by it, against the released memory.
    """
    tested = result[result["p_holm"].notna()]
    if tested.empty:
        return "No memory window could be compared with the released one."
    worse = tested[(tested["p_holm"] < ALPHA) & (tested["difference"] < 0)]
    said = [f"{row.comparison} {row.difference:+.3f}" for row in worse.itertuples()]
    text = f"Of {counted(len(tested), 'other memory window')}, after correction {len(worse)} "
    text += f"{'is' if len(worse) == 1 else 'are'} worse than the released one"
    text += (
        f" (mean paired difference of the IoU of propagated slices): {'; '.join(said)}. " if said else ". "
    )
    least = tested.iloc[-1]
    spread = f"{least['holm_low']:+.3f} to {least['holm_high']:+.3f}"
    return f"{text}With {least['comparison']} it changes by {least['difference']:+.3f} ({spread})."


def memory_bounded(result: pd.DataFrame) -> str:
    """Return what a perfect memory and prompts on every slice would give, against propagation.

    Parameters
    ----------
    result : DataFrame
        Of `paired.compare`: a comparison per bound (`options.BOUNDS`) against the released memory.
    """
    said = []
    for row in result[result["p_holm"].notna()].itertuples():
        reach = f"{row.holm_low:+.3f} to {row.holm_high:+.3f}"
        said.append(f"with {row.comparison} {row.difference:+.3f} ({reach})")
    if not said:
        return "No bound of the memory could be compared with the released one."
    return f"The IoU of propagated slices differs from that of the released memory: {'; '.join(said)}."


def where_loss_begins(found: ChangePoint) -> str:
    """Return in a sentence where the fall with the distance changes, or that this is not shown."""
    if found.note:
        return f"Where the loss begins cannot be said: it {found.note}."
    slopes = f"{found.before:+.4f} IoU per slice before, {found.after:+.4f} beyond"
    where = f"{found.at:.0f} slices from the prompt (95 % interval {found.low:.0f} to {found.high:.0f}"
    where += f"; {counted(found.n_patients, 'patient')}; {slopes})"
    if found.change_low <= 0 <= found.change_high:
        return f"No distance is shown at which the loss begins: the best break lies {where}."
    return f"The slope changes {where}."
