"""Figures of fine-tuning fit their page and show what they are given; the sentences say it."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from helpers.fine_tuned import GAIN, OTHER, SIZES, TRAINED, jobs, made_up

from medsam_nb.figures import fine_tuning as figures
from medsam_nb.figures import style
from medsam_nb.statistics import fine_tuning
from medsam_nb.statistics.paired import compare
from medsam_nb.workbook.fine_tuning import what_is_forgotten, what_it_brings

mpl.use("agg")
LEARNS = dict(fine_tuning.with_arms(jobs())[["arm", "learns"]].itertuples(index=False))


@pytest.fixture(scope="module")
def result():
    declared = fine_tuning.against_direct(jobs(), {"task": "3d"}, "3D")
    found = compare(fine_tuning.of_arms(made_up(), jobs()), declared)
    return found.assign(learns=[LEARNS[name.split(": ")[1]] for name in found["comparison"]])


@pytest.fixture(scope="module")
def changes():
    tables = [made_up(), *(made_up(name, patients=3, sign=-1.0) for name in OTHER)]
    most = fine_tuning.largest(jobs())
    return pd.concat([fine_tuning.gains(fine_tuning.of_arms(table, jobs()), most) for table in tables])


def lines():
    found = []
    for repeat in (0, 1):
        for size, many in {"1": 1, "5": 5, "all": 6}.items():
            roles = ["trained on"] * many + ["measured on"] * 4
            patients = [*range(many), *range(6, 10)]
            found += [
                {"fold": 0, "repeat": repeat, "patients": size, "column": p, "role": role}
                for p, role in zip(patients, roles, strict=True)
            ]
    return pd.DataFrame(found)


def is_cut(fig):
    fig.canvas.draw()
    box, (width, height) = fig.get_tightbbox(fig.canvas.get_renderer()), fig.get_size_inches()
    return min(box.x0, box.y0, width - box.x1, height - box.y1) < -0.01


@pytest.mark.filterwarnings("error")
def test_every_figure_fits_its_page_and_says_so_when_there_is_nothing(result, changes):
    curves = fine_tuning.learning_curves(made_up(), jobs())
    means = fine_tuning.mean_gains(changes)
    drawn = {
        "curve": (88, 70, lambda ax, n: figures.learning_curve(curves[:n], ax, "3D")),
        "differences": (150, 75, lambda ax, n: figures.arm_differences(result[:n], ax)),
        "forgetting": (
            130,
            70,
            lambda ax, n: figures.forgetting(changes[:n], means[:n], ax, [TRAINED], LEARNS),
        ),
        "split": (150, 62, lambda ax, n: figures.split_of_patients(lines(), ax)),
    }
    for name, (width, height, draw) in drawn.items():
        with style.style():
            fig, ax = style.canvas(width, height)
            assert len(draw(ax, None)) and not is_cut(fig), name
            plt.close(fig)
            if name != "split":
                fig, ax = style.canvas(width, height)
                assert draw(ax, 0).empty and not is_cut(fig), name
                plt.close(fig)


def test_filled_marks_are_the_arms_whose_corrected_interval_leaves_0(result):
    fig, ax = plt.subplots()
    figures.arm_differences(result, ax)
    marks = [line for line in ax.lines if line.get_marker() in figures.MARKERS.values()]
    clear = (result["holm_low"] > 0) | (result["holm_high"] < 0)
    assert [mark.get_markerfacecolor() != "white" for mark in marks] == list(clear) and clear.any()
    assert [mark.get_xdata()[0] for mark in marks] == list(result["difference"])
    plt.close(fig)


def test_who_is_trained_on_and_measured_on_is_drawn_apart():
    fig, ax = plt.subplots()
    figures.split_of_patients(lines(), ax)
    trained, measured = ax.lines[:2]
    assert len(trained.get_xdata()) == 2 * (1 + 5 + 6) and len(measured.get_xdata()) == 2 * 3 * 4
    assert not set(trained.get_xdata()) & set(measured.get_xdata())
    assert [text.get_text() for text in ax.get_yticklabels()][:2] == [
        "seed 1, 1 patient",
        "seed 1, 5 patients",
    ]
    plt.close(fig)


def test_the_sentences_say_the_numbers_and_no_more(result, changes):
    largest = result[result["comparison"].str.split(": ").str[1].isin(fine_tuning.largest(jobs()))]
    said = what_it_brings(largest, "miniature_sam2", ["simulated_ultrasound_series"])
    assert said.startswith(
        "With miniature SAM 2 on simulated ultrasound series, fine-tuning changed the mean IoU of 8 held-out "
        "patients in 3D by +0.04"
    )
    assert "; mask decoder), +0.01" in said and "encoder (LoRA))" in said
    assert said.endswith("after correction 2 of 3 are shown to be a gain and 1 of 3 is shown to be a loss.")
    few = what_it_brings(largest.assign(p_holm=0.2), "miniature_sam2", ["a"])
    assert few.endswith("none of them is shown to be a gain or a loss.") and len(SIZES) == len(GAIN) == 3
    assert what_it_brings(largest[:0], "m", []) == "No arm could be compared with direct application."
    forgot = what_is_forgotten(changes, [TRAINED])
    assert "(other ct, other PET; 6 patients)".replace("ct", "CT") in forgot and "-0.0" in forgot
    assert (
        what_is_forgotten(changes[changes.data_set == TRAINED], [TRAINED])
        == "What is forgotten was not measured."
    )
