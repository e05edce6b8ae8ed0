"""How long a person waits: from a click to the mask on the canvas, on one core.

    python -m benchmarks.bench_explorer

Goals: at most 0.5 s once the slice is encoded, at most 1.5 s for the first click on a slice (miniature, one
core). What is timed is all that the kernel does: encoding, decoding, drawing the figure, and its PNG for the
browser; the way through the browser is not in it.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.backend_bases import MouseEvent

from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.models.checkpoints import load_model
from medsam_nb.provenance import project_root
from medsam_nb.workbook.explorer_scene import scene_of_case
from medsam_nb.workbook.explorer_session import Session
from medsam_nb.workbook.explorer_view import Explorer

GOALS_S = {"first click on a slice": 1.5, "next click": 0.5}
REPEATS = 5


def seconds(action: Callable[[], object]) -> float:
    """Return how long an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure(data_set: str = "simulated_ct", model: str = "miniature_sam2") -> dict[str, list[float]]:
    """Return the seconds of every repeat, by what was done."""
    torch.set_num_threads(1)
    manifest = load_manifest(project_root() / "data_manifest.yaml")
    network = load_model(manifest.checkpoint(model), project_root() / "weights", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(manifest.data_set(data_set), root, root, progress=False)
        scene = scene_of_case(case_folders(root, data_set)[0])
        view = Explorer(Session(network, scene), root)
    view.canvas.draw()

    def click(x: float, y: float) -> None:
        px, py = view.ax.transData.transform((x, y))
        MouseEvent("button_press_event", view.canvas, px, py, 1)._process()
        view.canvas.draw()
        view.canvas.get_diff_image()

    height, width = scene.slices.shape[1:]
    click(width / 2, height / 2)  # what is made once for all slices
    found: dict[str, list[float]] = {name: [] for name in (*GOALS_S, "propagation, per slice")}
    for index in range(REPEATS):
        view.slice.value = index
        for number, name in enumerate(GOALS_S):
            found[name].append(seconds(lambda n=number: click(width / 2 + 3 * n, height / 2)))
    for _ in range(2):
        spent = seconds(lambda: (view.buttons["propagate"].click(), view.wait()))
        found["propagation, per slice"].append(spent / len(scene.slices))
    return found


def main() -> None:
    """Print the median and the worst of every action beside its goal."""
    print("| action | median s | worst s | goal s |")
    print("|---|---|---|---|")
    for name, times in measure().items():
        goal = GOALS_S.get(name, "")
        print(f"| {name} | {statistics.median(times):.2f} | {max(times):.2f} | {goal} |")


if __name__ == "__main__":
    main()
