"""The page from the answers down: boards, failures, words, one file, and a page that is written again."""

import re

import nbformat
import numpy as np
import pandas as pd
import pytest
from helpers.made_up import made_up_table
from helpers.pages import compared, page_path, written_run
from helpers.projects import as_project, started, write_notebook, write_study

from medsam_nb.errors import StudyError
from medsam_nb.protocol.designs import ALL_DESIGNS
from medsam_nb.statistics.scoreboard import scoreboard
from medsam_nb.workbook import report, runner
from medsam_nb.workbook.report import boards, executed, failures, words

PARAMETERS = 'run_dir = "runs/small"  # where results go\n'
ONE_UNIT_FAILS = """\
from pathlib import Path
import pandas as pd
from medsam_nb.workbook import report
units = pd.DataFrame({"data_set": "s", "case_id": ["a", "b"], "task": "2d", "status": ["failed", "stored"]})
report.save_table(units.assign(error="no memory"), Path(run_dir), "units_2d")
"""


@pytest.fixture
def run_dir(tmp_path):
    return written_run(tmp_path)


def page_of(run_dir, **options):
    return page_path(run_dir, **options).read_text(encoding="utf-8")


def test_the_figure_that_answers_is_open_and_all_else_is_folded(run_dir):
    page = page_of(run_dir)
    opened = re.sub(r"<details.*?</details>", "", page.split('id="02_evaluate_2d"')[1], flags=re.S)
    assert 'src="figures/by_prompt.png"' in opened and "by_case" not in opened.split("</section>")[0]
    assert page.count('src="figures/by_prompt.png"') == 1
    assert 'alt="By prompt, first mask."' in page


def test_a_board_shows_every_comparison_with_the_numbers_of_its_table(run_dir):
    result = compared(12)
    page = page_of(run_dir)
    for row in result.itertuples():
        assert f"{row.difference:.3f} ({row.holm_low:.3f} to {row.holm_high:.3f})" in page
    assert page.count("<svg role") == 2 and "Every line is over 12 cases of 1 data set." in page
    assert "box is higher" in page and "box instead of point: +0.10" in page
    assert "Not decided: mask instead of box." in page
    assert "A positive difference favours the first side; drawn from -" in page
    tiny = result.replace({"finding": {"inconclusive": "of no practical weight"}})
    assert boards.sentences(tiny)[1] == "Certain, but too small to matter: mask instead of box."


def test_with_too_few_units_a_board_says_so_and_gives_no_p():
    board = boards.comparisons_board(compared(3), "2D")
    assert "too few units for any test" in board.remark and {row.p for row in board.rows} == {"-"}
    assert boards.sentences(compared(3)) == [] and not board.tested


def test_with_too_few_units_the_claims_are_one_sentence():
    one, more = (made_up_table(("MRI-Heart",), n, designs=ALL_DESIGNS[:8]) for n in (1, 13))
    few = boards.claims_board(scoreboard(one, draws=99))
    assert few.rows == [] and "With 1 case of 1 data set none of 17 claims can be decided" in few.remark
    board = scoreboard(more, draws=99)
    many = boards.claims_board(board)
    assert len(many.rows) == board["claim"].nunique() and many.tested


def test_a_drawing_puts_an_interval_where_its_numbers_are():
    effect = boards.Effect(0.1, 0.05, 0.2, "a is higher", "box")
    svg = str(boards.drawing([effect], 0.2))
    x0 = float(re.search(r'<line x1="([\d.]+)"', svg)[1])
    low, high = map(float, re.search(r'x1="([\d.]+)" x2="([\d.]+)" y1="6', svg).groups())
    middle = float(re.search(r'cx="([\d.]+)"', svg)[1])
    half = x0 - 6  # from 0 to the limit
    assert np.allclose([low - x0, middle - x0, high - x0], np.array([0.25, 0.5, 1]) * half, atol=0.1)
    assert 'aria-label="box 0.100 (0.050 to 0.200)"' in svg


def test_what_failed_stands_in_the_summary_with_its_reason(run_dir):
    cases = pd.DataFrame(
        {"data_set": "simulated_ct", "case_id": ["a", "b", "c"], "status": ["ok", "failed", "failed"]}
    )
    report.save_table(cases.assign(error=["", "no mask <here>", "no mask <here>"]), run_dir, "cases")
    units = pd.DataFrame({"data_set": ["s"], "case_id": ["a"], "task": ["3d"], "status": ["failed"]})
    report.save_table(units.assign(error="MemoryError: full"), run_dir, "units_3d")
    found, number = failures.failures(run_dir)
    assert number == 3 and found == [
        "2 cases could not be used (simulated CT b, simulated CT c): no mask <here>",
        "3D: 1 unit of work failed (s a): MemoryError: full",
    ]
    page = page_of(run_dir)
    summary = page.split('id="short"')[1].split("<h2")[0]
    assert "3 cases or units of work failed." in summary and "no mask &lt;here&gt;" in summary


def test_terms_lead_to_their_meaning_once_per_text():
    terms = words.Terms()
    html = str(terms.linked("The first mask, and <first mask> again: IoU"))
    assert html.count("<a ") == 2 and "&lt;first mask&gt;" in html
    for target in re.findall(r'href="#([^"]+)"', html):
        assert target in {words.anchor(term) for term in words.GLOSSARY}
    assert str(terms.linked("IoU")) == "IoU"
    terms.begin_section()
    again = str(terms.linked("IoU"))
    assert "<a " in again and " id=" not in again and html.count(" id=") == 2  # of first uses only


def test_a_section_links_a_term_once_and_its_meaning_leads_back(run_dir):
    page = page_of(run_dir)
    for section in re.findall(r"<section.*?</section>", page, flags=re.S):
        links = re.findall(r'class="word"[^>]* href="#([^"]+)"', section)
        assert len(links) == len(set(links))
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for use in re.findall(r'id="(word-[a-z-]+-use)"', page):
        assert f'class="back" href="#{use}"' in page


def test_what_the_summary_says_is_not_said_again_below(run_dir):
    page = page_of(run_dir)
    assert page.count("A box wins.") == 1 and page.count("mask</a> was kept.") == 1
    assert "<p>More is said here.</p>" in page and "All of it: text, 1 figure, 1 table" in page
    assert "<p>Text.</p>" in page  # of statistics, whose boards stand in the summary instead


def test_the_page_says_when_it_was_computed_and_that_all_ran(run_dir):
    page = page_of(run_dir)
    assert "Computed on 27 November 2026: 3 notebooks" in page
    assert "Everything ran: no case and no unit of work failed." in page
    report.add_provenance(run_dir, "02_evaluate_2d", {"created": "<b>"})
    assert "Computed on 26 November 2026" in page_of(run_dir)
    (run_dir / "provenance.json").unlink()
    assert "Computed on" not in page_of(run_dir)


def test_parts_are_called_by_what_they_are(run_dir):
    page = page_of(run_dir)
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert headings[-4:] == ["Data and other parts", "Words", "Executed notebooks", "Provenance"]
    assert 'alt="Case seed11_5mm of simulated CT"' in page


def test_every_figure_leads_to_its_large_one(run_dir):
    page = page_of(run_dir)
    for name in ("by_prompt", "by_case"):
        assert f'<a href="figures/{name}.png"><img src="figures/{name}.png"' in page
        assert (run_dir / "figures" / f"{name}.png").is_file()


def test_tables_have_names_and_headings_of_rows_and_columns(run_dir):
    page = page_of(run_dir)
    tables = re.findall(r"<table.*?</table>", page, flags=re.S)
    assert len(tables) == 5
    for table in tables:
        assert "aria-label" in table.split(">")[0] and not re.search(r"<th(?![^>]*scope)[ >]", table)
        for row in re.findall(r"<tr.*?</tr>", table.split("<tbody")[1], flags=re.S):
            assert row.count('scope="row"') == 1
    for board in (table for table in tables if 'class="board"' in table):
        columns = re.findall(r'columnheader">([^<]+)<', board)[1:]
        row = board.split("<tbody")[1].split("</tr>")[0]
        assert re.findall(r'data-label="([^"]+)"', row) == columns
        assert '<span aria-hidden="true"><svg' in row  # the next cell says the same


def test_folded_parts_are_reached_by_headings_of_falling_rank(run_dir):
    page = page_of(run_dir)
    assert "<h3>Further figures</h3>" in page and "<summary><h4>A wide table.</h4> (2 rows)" in page
    levels = [int(level) for level in re.findall(r"<h(\d)", page)]
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert page.index('class="skip" href="#text"') < page.index("<nav") < page.index('<main id="text"')


def test_every_link_within_the_page_leads_somewhere(run_dir):
    page = page_of(run_dir)
    for target in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{target}"' in page, target


def test_one_file_needs_no_other(run_dir):
    page = page_of(run_dir, single=True)
    assert (run_dir / "report.html").is_file() and "data:image/png;base64," in page
    links = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert links and all(link.startswith(("#", "data:")) for link in links)
    assert "beside this page" not in page and "provenance.json" not in page
    with_files = page_of(run_dir)
    assert "--single-file" in with_files and 'href="notebooks/02_evaluate_2d.html"' in with_files


def test_no_identifier_stands_in_the_open(run_dir):
    page = re.sub(r"<(style|script)>.*?</\1>|<[^>]+>", " ", page_of(run_dir), flags=re.S)
    names = set(re.findall(r"\b[a-z]+_[a-z_0-9]+\b", page)) - {"test_statistics"}
    assert not names


def test_one_notebook_runs_and_the_page_keeps_the_others(tmp_path):
    with as_project(tmp_path / "workbook") as folder:
        for name in ("00_first", "01_second"):
            said = f'"{name}", "{name[3:]}", "Text.", in_short="{name[3:]} ran."'
            cell = "from pathlib import Path\nfrom medsam_nb.workbook import report\n"
            cell += f"report.add_section(Path(run_dir), {said})"
            write_notebook(folder, name, PARAMETERS, cell)
        study = write_study(folder)
        with pytest.raises(StudyError, match="has not been run"):
            runner.rewrite_report(study)
        first = runner.run_study(study)
        assert [run.name for run in first.runs] == ["00_first", "01_second"]
        again = runner.run_study(study, only=["01"])
        assert [run.name for run in again.runs] == ["01_second"]
        page = again.report.read_text(encoding="utf-8")
        assert "first ran." in page and "second ran." in page and "00_first.html" in page
        again.report.unlink()
        assert runner.rewrite_report(study).read_text(encoding="utf-8") == page
        with pytest.raises(StudyError, match="--only"):
            runner.run_study(study, only=["third"])


def test_a_run_says_how_it_ended_and_its_exit_status_counts_failed_units(tmp_path):
    with as_project(tmp_path / "workbook") as folder:
        write_notebook(folder, "00_first", PARAMETERS, ONE_UNIT_FAILS)
        study = write_study(folder)
        ends = {}
        for options in ((), ("--allow-failures",)):
            run = started("run", *options, study, folder=folder)
            ends[options] = run.communicate(timeout=120)[0], run.returncode
    printed, code = ends[()]
    assert code == 1 and "2D: 1 unit of work failed (s a): no memory" in printed
    assert "1 notebook to run. How long the units take: medsam-nb plan" in printed
    assert printed.rstrip().splitlines()[-1].startswith("report: ") and "run again" in printed
    printed, code = ends[("--allow-failures",)]
    assert code == 0 and "last time they took" in printed and "00_first (last time" in printed


def test_a_widget_of_a_saved_notebook_is_the_picture_that_it_showed(tmp_path):
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    picture = nbformat.v4.new_output("display_data", {"image/png": pixel})
    view = nbformat.v4.new_output("display_data", {executed.VIEW: {"model_id": "box", "version_major": 2}})
    cell = nbformat.v4.new_code_cell("browse()", outputs=[view])
    notebook = nbformat.v4.new_notebook(cells=[cell])
    states = {
        "box": {"model_name": "VBoxModel", "state": {"children": ["IPY_MODEL_screen"]}},
        "screen": {"model_name": "OutputModel", "state": {"outputs": [dict(picture)]}},
    }
    notebook.metadata["widgets"] = {executed.STATE: {"state": states, "version_major": 2, "version_minor": 0}}
    nbformat.write(notebook, tmp_path / "one.ipynb")
    page = executed.export_html(tmp_path / "one.ipynb").read_text(encoding="utf-8")
    assert pixel in page and "widget-view" not in page
