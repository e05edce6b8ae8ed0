"""What a training run writes down: losses and held-out IoU as CSV files, and their figure."""

from __future__ import annotations

import csv
from pathlib import Path


class Log:
    """Appends rows to a CSV file; the header is fixed by the first row's columns."""

    def __init__(self, path: Path, columns: list[str]):
        self.path, self.columns = path, columns
        if not path.is_file():
            path.write_text(",".join(columns) + "\n", encoding="utf-8")

    def write(self, row: dict) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as stream:
            csv.DictWriter(stream, self.columns, extrasaction="ignore").writerow(
                {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()}
            )


LOSS_COLUMNS = ["minutes", "stage", "step", "used", "lr", "loss", "box", "point", "metric", "box_iou"]
LOSS_COLUMNS += ["point_iou", "video", "video_iou", "presence"]
HELD_OUT_COLUMNS = ["minutes", "stage", "step", "box", "point_first", "point_confident", "point_best"]
HELD_OUT_COLUMNS += ["video", "absent_found"]


def draw_curves(out: Path) -> None:
    """Figure of the training loss and the held-out IoU from the two CSV files of a run.

    What a run does not measure (sequences, for SAM) is not in the figure.
    """
    import pandas as pd
    from matplotlib.figure import Figure

    losses, scores = pd.read_csv(out / "losses.csv"), pd.read_csv(out / "held_out.csv")
    figure = Figure(figsize=(10, 4))
    left, right = figure.subplots(1, 2)
    drawn = losses.dropna(axis="columns", how="all")
    for name in drawn.columns.intersection(["box", "point", "video"]):
        values = drawn[["minutes", name]].dropna()
        left.plot(values["minutes"], values[name].rolling(20, min_periods=1).mean(), label=f"{name} loss")
    drawn = scores.dropna(axis="columns", how="all")
    for name in drawn.columns.intersection(HELD_OUT_COLUMNS[3:]):
        values = drawn[["minutes", name]].dropna()
        label = name.replace("_", " ") + (" (share)" if name == "absent_found" else "")
        right.plot(values["minutes"], values[name], marker="o", label=label)
    left.set(xlabel="training time (min)", ylabel="loss (running mean)")
    right.set(xlabel="training time (min)", ylabel="held-out IoU (simulated)", ylim=(0, 1))
    for axis in (left, right):
        axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(out / "training_curve.png", dpi=110)
