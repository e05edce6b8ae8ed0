"""Where the time of a run went is read from its executed notebooks."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from benchmarks.where_time_goes import table_of
from medsam_nb.workbook.report import NotebookRun, keep_runs


def test_long_cells_stand_alone_and_all_seconds_are_counted(tmp_path):
    cells = [new_markdown_cell("# title")]
    for source, seconds in (("# a remark\nlong(1)", 5.0), ("short()", 0.5), ("another()", 0.25)):
        cells.append(new_code_cell(source, metadata={"papermill": {"duration": seconds}}))
    executed = tmp_path / "notebooks" / "02_some.ipynb"
    executed.parent.mkdir()
    nbformat.write(new_notebook(cells=cells), executed)
    keep_runs([NotebookRun("02_some", executed, 7.0, None)], tmp_path)
    table = table_of(tmp_path, 2.0)
    assert table["cell"].tolist() == ["", "long(1)", "2 shorter cells", "kernel and papermill"]
    assert table["seconds"].tolist() == pytest.approx([7.0, 5.0, 0.75, 1.25])
