"""What the memory is worth, drawn and said."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from medsam_nb.figures import memory, style
from medsam_nb.protocol.options import MemoryWindow, windows
from medsam_nb.protocol.table import as_table
from medsam_nb.statistics.change_point import by_distance, change_point
from medsam_nb.statistics.paired import compare
from medsam_nb.workbook.findings import memory_bounded, memory_needed, where_loss_begins

mpl.use("agg")
ORDER = ["released", "3 memories", "1 memory"]


def made_up(cases=8):
    rng = np.random.default_rng(0)
    rows = []
    for name, loss in zip(ORDER, (0, 0.0, 0.02), strict=True):
        for case in range(cases):
            for d in range(-6, 7):
                value = 0.8 - (loss + 0.03 * (abs(d) > 3)) * abs(d) + rng.normal(0, 0.002)
                place = {"task": "3d", "data_set": f"s{case % 2}", "case_id": f"c{case}", "object": "o"}
                rows.append(
                    place | {"model": "m", "memory": name, "slice_index": 9 + d, "distance_slices": d}
                    | {"metric": "iou", "value": value}
                )  # fmt: skip
    return as_table(rows)


def compared(table):
    declared = [
        {"name": n, "family": "memory", "task": "3d", "vary": "memory", "a": n, "b": "released"}
        | {"slices": "propagated"}
        for n in ORDER[1:]
    ]
    return compare(table, declared)


def test_what_is_drawn_are_propagated_slices_in_the_given_order():
    table, (fig, axes) = made_up(), plt.subplots(1, 2)
    drawn = memory.iou_by_memory(table, axes[0], ORDER)
    assert drawn["memory"].tolist() == ORDER and drawn["n_cases"].eq(8).all()
    released = table[(table["memory"] == "released") & table["distance_slices"].ne(0)]["value"].mean()
    assert abs(drawn["mean"][0] - released) < 1e-9
    shown = memory.memory_differences(compared(table), axes[1], ORDER)
    assert shown["comparison"].tolist() == ORDER[1:]
    marks = [line for line in axes[1].lines if line.get_marker() == "o"]
    assert [mark.get_ydata()[0] for mark in marks] == [1, 2]
    assert marks[0].get_markerfacecolor() == "white" and marks[1].get_markerfacecolor() == style.CLEAR
    for ax, draw in ((axes[0], memory.iou_by_memory), (axes[1], memory.memory_differences)):
        empty = compared(table)[:0] if draw is memory.memory_differences else table[:0]
        assert draw(empty, ax, ORDER).empty
    plt.close(fig)


def test_the_scheme_shows_what_the_network_reads():
    shown = windows([1, 4], [3], [3], ["truth", "nothing"])
    fig, ax = plt.subplots()
    drawn = memory.window_scheme(shown, ax)
    read = drawn[drawn["read"].isin(["memory", "true mask"])].groupby("memory")["slice_index"].agg(set)
    assert [read.get(window.name, set()) for window in shown] == [
        {14, 15, 16, 17, 18, 19}, set(), {17, 18, 19}, {6, 9, 12, 15, 18, 19}, {14, 15, 16, 17, 18, 19},
        {14, 15, 16, 17, 18, 19}, set(),
    ]  # fmt: skip
    pointers = drawn[drawn["read"] == "pointer"].groupby("memory")["slice_index"].agg(set)
    assert pointers[MemoryWindow().name] == set(range(5, 20)) and pointers[shown[4].name] == {18, 19}
    assert drawn[drawn["memory"] == "every slice prompted"].values.tolist()[0][1:] == [20, "prompt"]
    plt.close(fig)


def test_the_sentences_say_what_was_found():
    table = made_up()
    bound = memory_bounded(compared(table)[1:])
    assert bound.startswith("The IoU of propagated slices differs") and "with 1 memory -0.07" in bound
    assert memory_bounded(compared(table)[:0]).startswith("No bound")
    said = memory_needed(compared(table))
    assert "after correction 1 is worse than the released one" in said and "1 memory -0.0" in said
    assert memory_needed(compared(table[:0])) == "No memory window could be compared with the released one."
    means = by_distance(table[table["memory"] == "released"])
    found = change_point(means, draws=200)
    assert where_loss_begins(found).startswith("The slope changes 3 slices from the prompt")
    assert where_loss_begins(change_point(means[:0])).startswith("Where the loss begins cannot be said")
    fig, ax = plt.subplots()
    drawn = memory.broken_line(means, found, ax)
    assert drawn["n_patients"].eq(8).all() and abs(drawn["mean"] - drawn["fitted"]).max() < 0.05
    assert memory.broken_line(means[:0], change_point(means[:0]), ax).empty
    plt.close(fig)
    assert isinstance(drawn, pd.DataFrame)
