"""The report: what a reader sees of numbers, figures, long tables and failures."""

import nbformat
import numpy as np
import pandas as pd
import pytest

from medsam_nb.figures import style
from medsam_nb.workbook import report

STUDY = {"title": "A study", "question": "Which prompt?", "caveats": ["Miniature models."]}


@pytest.fixture
def run_dir(tmp_path):
    table = pd.DataFrame(
        {
            "comparison": ["box against point", "equal <within> a margin that is long to read"],
            "median_difference": [0.2154, 7.6e-06],
            "n": [12, 13],
            "area_mm2": [1234.5, np.nan],
            "p_holm": [1.3e-7, np.nan],
        }
    )
    report.save_table(table, tmp_path, "comparisons")
    report.save_table(pd.DataFrame({"warning": []}), tmp_path, "warnings")
    report.save_table(pd.DataFrame({"case": range(report.ROWS_SHOWN + 5)}), tmp_path, "cases")
    with style.style():
        figure, ax = style.canvas(88, 60)
        style.save(figure, tmp_path / "figures", "small", pd.DataFrame())
    report.add_section(
        tmp_path,
        "04_test_statistics",
        "Statistics",
        "First.\n\nSecond <b>.",
        figures={"small": "A figure.", "not_there": "Never drawn."},
        tables={"comparisons": "Comparisons.", "cases": "Cases.", "warnings": "Warnings."},
        facts={"comparisons made": 2},
        in_short="A box wins.",
        galleries={"liver (1 case)": [("figures/mosaics/liver/one.png", "liver is <tiny>")]},
    )
    return tmp_path


def written(run_dir, error=None):
    copy = run_dir / "notebooks" / "04_test_statistics.ipynb"
    copy.parent.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")]), copy)
    run = report.NotebookRun("04_test_statistics", copy, 3.0, error)
    return report.write_report(STUDY, [run], run_dir).read_text(encoding="utf-8")


def test_numbers_are_rounded_for_reading_and_small_p_values_are_bounds(run_dir):
    page = written(run_dir)
    assert "<td>0.215</td>" in page and "<td>0.000</td>" in page and "7.6e-06" not in page
    assert "<td>&lt;0.001</td>" in page and "nan" not in page.lower().split("provenance")[0]
    assert "<td>1234</td>" in page or "<td>1235</td>" in page
    assert "<th>median difference</th>" in page
    assert '<div class="long">equal &lt;within&gt; a margin' in page


def test_long_tables_are_cut_with_a_count_and_figures_have_their_printed_size(run_dir):
    page = written(run_dir)
    assert f"first {report.ROWS_SHOWN} of {report.ROWS_SHOWN + 5} rows" in page
    width = 88 / 25.4 * report.CSS_PIXELS_PER_INCH
    assert f'width="{width:.0f}"' in page
    assert "<p>None.</p>" in page.split("Warnings.")[1] and "<th>warning</th>" not in page
    assert "not_there" not in page and "Second &lt;b&gt;." in page


def test_findings_and_caveats_come_first(run_dir):
    page = written(run_dir)
    assert page.index("A box wins.") < page.index("Miniature models.") < page.index("<section")


def test_a_failed_notebook_is_named_first_and_leaves_no_section(run_dir):
    page = written(run_dir, error="ValueError: no slices")
    assert page.index("Notebook 04_test_statistics failed: ValueError: no slices") < page.index("<section")
    assert "Comparisons." not in page and "04_test_statistics.html" in page


def test_pictures_of_cases_are_folded_under_their_heading(run_dir):
    page = written(run_dir)
    folded = page.split("<details>")[1].split("</details>")[0]
    assert "<summary>liver (1 case)</summary>" in folded
    assert '<img src="figures/mosaics/liver/one.png"' in folded
    assert "<figcaption>liver is &lt;tiny&gt;</figcaption>" in folded
