"""The report: what a reader sees of numbers, figures, long tables and failures."""

import csv
import json
import re
from html.parser import HTMLParser

import nbformat
import numpy as np
import pandas as pd
import pytest

from medsam_nb.errors import UNPRINTABLE, InputError, StudyError, printable
from medsam_nb.figures import style
from medsam_nb.workbook import printed, report
from medsam_nb.workbook.report import tables

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
    assert '<th scope="col">median difference</th>' in page and '<th scope="col">corrected p</th>' in page
    assert '<div class="long">equal &lt;within&gt; a margin' in page


def test_long_tables_are_cut_with_a_count_and_figures_have_their_printed_size(run_dir):
    page = written(run_dir)
    assert f"First {report.ROWS_SHOWN} of {report.ROWS_SHOWN + 5} rows" in page
    width = 88 / 25.4 * report.CSS_PIXELS_PER_INCH
    assert f'width="{width:.0f}"' in page
    assert page.split("Warnings.")[1].startswith(" None.") and ">warning</th>" not in page
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
    folded = page.split("<summary><h5>liver (1 case)</h5></summary>")[1].split("</details>")[0]
    assert '<img src="figures/mosaics/liver/one.png"' in folded
    assert "<figcaption>liver is &lt;tiny&gt;</figcaption>" in folded


# Names as they may come from a manifest, a study, a file or an error.
NAMES = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", "&lt;b&gt;",
    "</pre></details><script>alert(1)</script>", "{{ 7 * 7 }}", "{% raw %}", "javascript:alert(1)",
    "=1+1", "+SUM(A1)", "-2+3+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1+1", " =1+1", "\uff1d1+1", "\r=1",
    "a_b & 50 % #1 $x$ {y} ~ ^ \\input{/etc/passwd}", "}\\end{table}\\input{x}", "[2cm] row", "*row",
    "two\n\nparts", "\x1b[31mred", "turned \u202e text",
]  # fmt: skip


class Tags(HTMLParser):
    """Collects the elements and the attributes that act."""

    def __init__(self, page):
        super().__init__()
        self.found, self.acting = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append(tag)
        self.acting += [name for name, value in attributes if name.startswith("on")]
        links = [value or "" for name, value in attributes if name in ("href", "src")]
        self.acting += [link for link in links if link.strip().startswith("javascript:")]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_tries_is_only_shown(name, run_dir):
    report.save_table(pd.DataFrame({name: [1], "error": [name], "p": [name]}), run_dir, "comparisons")
    report.add_provenance(run_dir, "04_test_statistics", {"parameters": {name: name}})
    plain = Tags(written(run_dir)).found
    tried = {"figures": {"small": name}, "tables": {"comparisons": name}, "facts": {name: name}}
    report.add_section(
        run_dir,
        "04_test_statistics",
        name,
        name,
        **tried,
        in_short=name,
        galleries={name: [("a/b.png", name)]},
    )
    copy = run_dir / "notebooks" / "04_test_statistics.ipynb"
    study = {"title": name, "question": name, "caveats": [name]}
    page = report.write_report(study, [report.NotebookRun("04_test_statistics", copy, 3.0, None)], run_dir)
    tags = Tags(page.read_text(encoding="utf-8"))
    assert set(tags.found) <= {*plain, "a", "details", "summary", "dl", "div", "dt", "dd", "figure", "img"}
    assert tags.found.count("script") == 1 and tags.acting == []  # the page's own
    assert ">49<" not in page.read_text(encoding="utf-8")
    assert not UNPRINTABLE.search(page.read_bytes().decode())  # nothing steers a terminal or turns text


@pytest.mark.parametrize("name", NAMES)
def test_a_spreadsheet_runs_no_name(name, tmp_path):
    path = report.save_table(pd.DataFrame({name: [1.5], "name": [name], "n": [-3]}), tmp_path, "names")
    with path.open(encoding="utf-8", newline="") as file:
        header, row = csv.reader(file)
    for cell in (header[0], row[1]):
        assert not re.match(r"\s*[=+@\uff1d]|\s*-\D|[\t\r\n]", cell) and cell[:8] != "-2+3+cmd"
        assert cell in (printable(name), f"'{printable(name)}")
    assert row[2] == "-3"  # a number stays one
    assert (
        pd.read_parquet(path.with_suffix(".parquet"))["name"][0] == name
    )  # the data themselves are as they were


def test_printed_numbers_stay_as_they_are(tmp_path):
    cells = ["-0.138 (-0.202 to 0.011) [90 % CI]", "-0.138", "+3", "-", "-1e-05", "0.5"]
    path = report.save_table(pd.DataFrame({"printed": cells}), tmp_path, "numbers")
    assert path.read_text(encoding="utf-8").split("\n")[1:-1] == cells


@pytest.mark.parametrize("name", NAMES)
def test_latex_sets_a_name_and_does_nothing_else(name):
    text = printed.latex(pd.DataFrame({"claim": [name], name: ["x"]}), name, name)
    assert re.search(r"\\label\{tab:[A-Za-z0-9:._-]*\}", text)
    body = text.replace(r"\textbackslash{}", "")
    commands = set(re.findall(r"\\[a-z]+", body))
    assert commands <= {
        r"\begin", r"\end", r"\centering", r"\caption", r"\label", r"\toprule", r"\midrule", r"\bottomrule",
        r"\linewidth", r"\textasciitilde", r"\textasciicircum",
    }  # fmt: skip
    assert not re.search(r"\\\\\s*[\[*]", body)  # an argument of a line break
    assert body.count(r"\end{table}") == 1 and "\n\n" not in text and "\x1b" not in text


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def changed(**fields):
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | fields), encoding="utf-8")


SECTION = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": cut,
    "a list": lambda path: path.write_bytes(b"[]"),
    "null": lambda path: path.write_bytes(b"null"),
    "binary": lambda path: path.write_bytes(bytes(range(256))),
    "deep": lambda path: path.write_bytes(b'{"text":' * 50_000),
    "no text": changed(text=None),
    "a number as heading": changed(heading=3),
    "another notebook's": changed(notebook="02_evaluate_2d"),
    "an unknown field": changed(more=1),
    "a figure elsewhere": changed(figures={"../../secret": "x"}),
    "a table elsewhere": changed(tables={"/etc/passwd": "x"}),
    "a picture of another kind": changed(galleries={"x": [["javascript:alert(1)", "x"]]}),
    "a picture elsewhere": changed(galleries={"x": [["../../../etc/passwd", "x"]]}),
    "a gallery without captions": changed(galleries={"x": ["a.png"]}),
}


@pytest.mark.parametrize("name", SECTION)
def test_a_damaged_section_is_named_on_the_page_and_written_anew(name, run_dir):
    path = run_dir / "sections" / "04_test_statistics.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    SECTION[name](path)
    page = written(run_dir)
    line = page.split("Left out of this page: ")[1].split("</p>")[0]
    assert str(path) in line and "A box wins." not in page
    with pytest.raises(InputError, match="04_test_statistics.json"):
        report.read_section(run_dir, "04_test_statistics")
    fields = {key: whole[key] for key in ("figures", "tables", "facts", "in_short", "galleries")}
    report.add_section(run_dir, "04_test_statistics", whole["heading"], whole["text"], **fields)
    assert json.loads(path.read_text(encoding="utf-8")) == whole
    assert "Left out" not in written(run_dir)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'{"02": 3}', bytes(range(256)), b'{"a": NaN}'])
def test_a_damaged_record_of_provenance_is_named_and_begun_anew(data, run_dir):
    report.add_provenance(run_dir, "02_evaluate_2d", {"seed": [1]})
    path = run_dir / "provenance.json"
    path.write_bytes(data)
    page = written(run_dir)
    assert str(path) in page.split("Left out of this page: ")[1].split("</p>")[0]
    with pytest.warns(UserWarning, match="provenance.json.*begun anew; run all notebooks again"):
        report.add_provenance(run_dir, "03_propagate_3d", {"seed": [2]})
    assert report.read_provenance(run_dir) == {"03_propagate_3d": {"seed": [2]}}


@pytest.mark.parametrize("what", ["tables/comparisons.parquet", "figures/small.png"])
def test_a_damaged_table_or_figure_costs_nothing_else(what, run_dir):
    cut(run_dir / what)
    if what.endswith("png"):
        (run_dir / what).write_bytes(b"no picture")
    page = written(run_dir)
    assert str(run_dir / what) in page.split("Left out of this page: ")[1].split("</p>")[0]
    assert "A box wins." in page and "Cases." in page


def test_damaged_results_are_named(tmp_path):
    report.save_table(pd.DataFrame({"value": [1.0]}), tmp_path, "results_2d")
    cut(tmp_path / "tables" / "results_2d.parquet")
    with pytest.raises(StudyError, match="results_2d.parquet: cannot be read.*again"):
        report.read_results(tmp_path)


def test_tables_print_names_as_figures_do_and_cases_as_they_are(tmp_path):
    rows = {"model": ["miniature_sam2", None], "case_id": ["scan_us_7", "b"], "prompt": ["one_box", "mask"]}
    report.save_table(pd.DataFrame(rows), tmp_path, "shown")
    html = tables.shown(tmp_path / "tables" / "shown.parquet")["html"]
    assert '<th scope="row">miniature SAM 2</th>' in html and '<th scope="row"></th>' in html
    assert all(f"<td>{text}</td>" in html for text in ("scan_us_7", "b", "one box", "mask"))
