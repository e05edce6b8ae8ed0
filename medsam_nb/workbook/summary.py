"""What is said before and after a study in the terminal: how long it took last time, and how it ended."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from medsam_nb.figures.words import counted
from medsam_nb.workbook.progress import words
from medsam_nb.workbook.report import read_runs
from medsam_nb.workbook.report.failures import failures

SHOWN = 5  # reasons of failures; the page has all


def seconds_before(names: Sequence[str], run_dir: Path) -> dict[str, float]:
    """Return how long notebooks took when they last ran to their end in a folder."""
    runs = {run.name: run.seconds for run in read_runs(run_dir) if not run.error and run.seconds}
    return {name: runs[name] for name in names if name in runs}


def expected(names: Sequence[str], run_dir: Path, study: object) -> str:
    """Return in a sentence how long notebooks will take, from when they last ran; or who could say."""
    known = seconds_before(names, run_dir)
    text = f"{counted(len(names), 'notebook')} to run"
    if not known:
        return f"{text}. How long the units take: medsam-nb plan {study}."
    missing = len(names) - len(known)
    text += f"; last time they took {words(sum(known.values()))} at most"  # some ran side by side
    text += f" ({missing} of them never ran)" if missing else ""
    return f"{text}. What is stored is not computed again."


def ended(run_dir: Path, errors: Sequence[str], study: object) -> tuple[list[str], int]:
    """Return what is said at the end of a run, and how many cases and units of work failed.

    Parameters
    ----------
    run_dir : Path
    errors : sequence of str
        Notebooks that failed.
    study : object
        Its file, for the commands that go on.
    """
    found, number = failures(run_dir)
    lines = []
    cases = Path(run_dir) / "tables" / "cases.parquet"
    if cases.is_file():
        try:
            states = pd.read_parquet(cases, columns=["status"])["status"]
            lines.append(f"cases: {int((states == 'ok').sum())} of {len(states)} usable")
        except Exception:  # damage of any kind; the page names it
            lines.append(f"cases: {cases} cannot be read")
    lines += [f"failed: {line}" for line in found[:SHOWN]]
    lines += [f"failed: {len(found) - SHOWN} more reasons, on the page"] if len(found) > SHOWN else []
    if errors:
        tracebacks = Path(run_dir) / "notebooks"
        lines.append(f"failed notebooks: {', '.join(errors)}; tracebacks in {tracebacks}")
    if errors or number:
        lines.append(f"mend what failed and run again: medsam-nb run {study}; finished units are kept")
    return lines, number
