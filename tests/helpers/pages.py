"""A small run with a board, figures, tables and pictures, and its page."""

from pathlib import Path

import nbformat
import numpy as np
import pandas as pd

from medsam_nb.figures import style
from medsam_nb.protocol.table import as_table
from medsam_nb.statistics.paired import BRIEF_COLUMNS, compare
from medsam_nb.workbook import report

STUDY = {"title": "A study", "question": "Which prompt?", "caveats": ["Miniature models."]}
NOTEBOOKS = ("01_prepare_data", "02_evaluate_2d", "04_test_statistics")
DECLARED = [
    {"name": "box against point", "family": "2D", "vary": "prompt", "a": "one_box", "b": "one_point"},
    {"name": "mask against box, 3D", "family": "3D", "vary": "prompt", "a": "mask", "b": "one_box"},
]


def compared(n):
    """Return declared comparisons of a table in which a box gains 0.1 over a point, and a mask nothing."""
    rng = np.random.default_rng(0)
    cases = pd.DataFrame({"data_set": "s", "case_id": [f"c{k}" for k in range(n)]})
    means = {"one_point": 0.5, "one_box": 0.6 + rng.normal(0, 0.01, n)}
    means["mask"] = means["one_box"] + rng.normal(0, 0.05, n)
    rows = [cases.assign(prompt=prompt, metric="iou", value=value) for prompt, value in means.items()]
    return compare(as_table(pd.concat(rows)), DECLARED)


def written_run(folder: Path) -> Path:
    """Write what notebooks leave into a folder; return it."""
    result = compared(12)
    report.save_table(result, folder, "comparisons")
    report.save_table(result[BRIEF_COLUMNS], folder, "comparisons_brief")
    wide = pd.DataFrame({f"a rather long heading {n}": [n, 3 - n] for n in range(16)})
    report.save_table(wide, folder, "wide")
    with style.style():
        for name, width in (("by_prompt", 180), ("by_case", 88)):
            figure, ax = style.canvas(width, 60)
            ax.plot([0, 1], [0, 1])
            style.save(figure, folder / "figures", name, pd.DataFrame({"x": [0, 1]}))
    figures = {"by_case": "By case.", "by_prompt": "By prompt, first mask."}
    report.add_section(
        folder,
        "02_evaluate_2d",
        "2D",
        "A box wins. More is said here.\n\nThe first mask was kept.",
        figures=figures,
        tables={"wide": "A wide table."},
        in_short="A box wins. The first mask was kept.",
        lead="by_prompt",
    )
    report.add_section(
        folder, "04_test_statistics", "Statistics", "Text.", tables={"comparisons_brief": "Comparisons."}
    )
    pictures = {"simulated_ct (1 case)": [("figures/mosaics/simulated_ct/seed11_5mm.png", "")]}
    report.add_section(folder, "01_prepare_data", "Data", "One case.", galleries=pictures)
    days = {"01_prepare_data": "2026-11-26T23:00:00+00:00", "02_evaluate_2d": "2026-11-27T01:00:00+00:00"}
    for name, day in days.items():
        report.add_provenance(folder, name, {"created": day})
    return folder


def page_path(run_dir: Path, **options) -> Path:
    """Write the page of such a run, with the copy of a notebook; return its path."""
    copy = run_dir / "notebooks" / "02_evaluate_2d.ipynb"
    copy.parent.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(), copy)
    runs = [report.NotebookRun(name, copy if name == copy.stem else None, 3.0, None) for name in NOTEBOOKS]
    return report.write_report(STUDY, runs, run_dir, **options)
