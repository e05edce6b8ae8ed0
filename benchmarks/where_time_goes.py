"""Where the time of a study that was run goes: by notebook, and by its longest cells.

    python -m benchmarks.where_time_goes [runs/demo] [--least 2]

From what papermill left in the executed copies; nothing is computed. Times are those of the last run of each
notebook, on whatever else the machine was doing; notebooks may have run side by side.
"""

import argparse
from pathlib import Path

import nbformat
import pandas as pd

from medsam_nb.workbook.report import read_runs


def cells_of(path: Path) -> list[tuple[float, str]]:
    """Return seconds and first line of every code cell of an executed notebook."""
    found = []
    for cell in nbformat.read(path, as_version=4).cells:
        seconds = cell.metadata.get("papermill", {}).get("duration")
        if cell.cell_type == "code" and seconds:
            lines = [line for line in cell.source.splitlines() if line.strip() and line[0] != "#"]
            found.append((float(seconds), lines[0] if lines else ""))
    return found


def table_of(run_dir: Path, least_s: float) -> pd.DataFrame:
    """Return seconds by notebook, its longest cells, all others together, and what lies outside of cells.

    Parameters
    ----------
    run_dir : Path
    least_s : float
        Cells that took less are counted together.
    """
    rows = []
    for run in read_runs(run_dir):
        rows.append((run.name, "", run.seconds))
        if run.executed is None or not Path(run.executed).is_file():
            continue
        cells = cells_of(run.executed)
        long = [cell for cell in cells if cell[0] >= least_s]
        rows += [("", line, seconds) for seconds, line in sorted(long, reverse=True)]
        rest = sum(seconds for seconds, _ in cells) - sum(seconds for seconds, _ in long)
        rows.append(("", f"{len(cells) - len(long)} shorter cells", rest))
        rows.append(("", "kernel and papermill", max(0.0, run.seconds - sum(s for s, _ in cells))))
    return pd.DataFrame(rows, columns=["notebook", "cell", "seconds"])


def main() -> None:
    """Print the table of a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", nargs="?", default="runs/demo", type=Path)
    parser.add_argument("--least", default=2.0, type=float, help="seconds of a cell that is listed")
    chosen = parser.parse_args()
    for row in table_of(chosen.run_dir, chosen.least).itertuples():
        print(f"{row.seconds:7.1f} s  {row.notebook or '  ' + row.cell[:90]}")


if __name__ == "__main__":
    main()
