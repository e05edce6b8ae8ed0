"""The curve of displaced prompts: repeats within a case first, then cases."""

import pandas as pd
import pytest
from helpers.made_up import made_up_table

from medsam_nb.figures import style
from medsam_nb.figures.robustness import iou_by_share


def shaken():
    """Rows of one model under four sources: each share of 0.1 costs 0.05, repeats differ by 0.02."""
    rows = made_up_table(cases=3)
    rows = rows[
        (rows.task == "2d") & (rows.model == "miniature_sam2") & rows.prompt.isin(["one_point", "one_box"])
    ]
    rows = rows.assign(value=rows["value"].clip(0.3, 0.9))
    parts = [rows]
    for share, repeat, loss in ((0.1, 0, 0.04), (0.1, 1, 0.06), (0.2, 0, 0.1)):
        parts.append(rows.assign(value=rows["value"] - loss, prompt_source=f"jittered:{share}:{repeat}"))
    return pd.concat(parts, ignore_index=True)


def test_repeats_are_averaged_within_a_case():
    with style.style():
        figure, ax = style.canvas(88, 62)
        drawn = iou_by_share(shaken(), ax)
        figure.canvas.draw()
    assert list(drawn.share) == [0.0, 0.1, 0.2] * 2 and set(drawn.n_cases) == {6}
    for _, curve in drawn.groupby("prompt"):
        mean = curve["mean"].to_numpy()
        assert mean[1] == pytest.approx(mean[0] - 0.05) and mean[2] == pytest.approx(mean[0] - 0.1)
        assert (curve.ci_low <= curve["mean"]).all() and (curve["mean"] <= curve.ci_high).all()


def test_nothing_to_draw_is_said():
    with style.style():
        _, ax = style.canvas(88, 62)
        assert iou_by_share(shaken()[:0], ax).empty
