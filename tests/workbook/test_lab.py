"""The notebooks in JupyterLab, in a real browser: untouched, top to bottom, as a user opens them.

They run in a copy of the workbook's folder, on the finished rows of `make reproduce`, and must show what
the report's copies show. CI sets MEDSAM_NB_REQUIRE_BROWSER, and then nothing here is skipped.
"""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from helpers.lab import CHROMIUM, NO_CHROMIUM, jupyterlab, skip_or_fail
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[2]
# Those of the demonstration; of the open questions there is no finished run to open.
NOTEBOOKS = sorted(yaml.safe_load((ROOT / "studies" / "demo.yaml").read_text(encoding="utf-8"))["notebooks"])
DEMO = ROOT / "runs" / "demo"
DEADLINE_S = 300
PICTURES = ("image/png", "application/vnd.jupyter.widget-view+json")

# What the open notebook holds, per code cell: count, kinds of output, errors; and whether it is busy.
LOOK = """() => {
  const panel = window.jupyterapp.shell.currentWidget;
  if (!panel || !panel.content || !panel.context || !panel.context.isReady) return null;
  const cells = panel.context.model.toJSON().cells.filter(cell => cell.cell_type === 'code');
  const session = panel.sessionContext.session;
  return {
    path: panel.context.path,
    busy: !session || !session.kernel || session.kernel.status !== 'idle',
    cells: cells.map(cell => ({
      count: cell.execution_count,
      kinds: cell.outputs.map(output => Object.keys(output.data || {})).flat(),
      error: cell.outputs.filter(output => output.output_type === 'error')
        .map(output => `${output.ename}: ${output.evalue}`).join(),
    })),
  };
}"""


def _missing() -> str | None:
    if NO_CHROMIUM:
        return NO_CHROMIUM
    if not (DEMO / "notebooks" / f"{NOTEBOOKS[-1]}.ipynb").is_file():
        return "no finished demonstration to open the notebooks on: run `make reproduce` first"
    return None


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[str]:
    """Address of a JupyterLab on a copy of the workbook, so that its autosave changes nothing here."""
    skip_or_fail(_missing())
    root = tmp_path_factory.mktemp("workbook")
    for name in ("data_manifest.yaml", "notebooks", "studies", "data/prepared", "runs/demo"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, root / name)
    with jupyterlab(root) as address:
        yield address


@pytest.fixture(scope="module")
def page(lab) -> Iterator[Page]:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1500, "height": 1100})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def wait_for(page: Page, wanted, seconds: float):
    """Poll what the open notebook holds until `wanted(look)`; returns it."""
    until = time.monotonic() + seconds
    look = None
    while time.monotonic() < until:
        look = page.evaluate(LOOK)
        if look and wanted(look):
            return look
        page.wait_for_timeout(500)
    raise AssertionError(f"after {seconds} s the notebook stands at {look}")


def run_all(page: Page, lab: str, name: str) -> dict:
    """Open a notebook in a workspace of its own and click Run > Run All Cells."""
    page.goto(f"{lab}lab/workspaces/{name[:2]}/tree/notebooks/{name}.ipynb", wait_until="domcontentloaded")
    page.wait_for_function("() => window.jupyterapp !== undefined")
    wait_for(page, lambda look: look["path"].endswith(f"{name}.ipynb") and not look["busy"], 90)
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").click()
    page.locator(".lm-Menu-itemLabel").get_by_text("Run All Cells", exact=True).click()

    def done(look: dict) -> bool:
        failed = any(cell["error"] for cell in look["cells"])
        return failed or (not look["busy"] and all(cell["count"] for cell in look["cells"]))

    return wait_for(page, done, DEADLINE_S)


def pictures_in_report(name: str) -> list[int]:
    """Number of figures of every code cell in the copy that papermill ran."""
    executed = json.loads((DEMO / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    cells = [
        cell
        for cell in executed["cells"]
        if cell["cell_type"] == "code" and "injected-parameters" not in cell["metadata"].get("tags", [])
    ]
    return [
        sum(kind in PICTURES for output in cell["outputs"] for kind in output.get("data", {}))
        for cell in cells
    ]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_untouched_and_shows_what_the_report_shows(lab, page, name):
    look = run_all(page, lab, name)
    assert [cell["error"] for cell in look["cells"] if cell["error"]] == []
    assert [cell["count"] for cell in look["cells"]] == list(range(1, len(look["cells"]) + 1))
    shown = [sum(kind in PICTURES for kind in cell["kinds"]) for cell in look["cells"]]
    assert shown == pictures_in_report(name)
    if name == "03_propagate_3d":
        check_slider(page)
    page.evaluate("() => window.jupyterapp.commands.execute('kernelmenu:shutdown')")


def check_slider(page: Page) -> None:
    """The slice browser shows another picture after a step of its slider."""
    page.evaluate(
        """() => {
          const notebook = window.jupyterapp.shell.currentWidget.content;
          const index = notebook.widgets.findIndex(
            cell => cell.model.sharedModel.source.includes('explorer.browse('));
          notebook.activeCellIndex = index;
          return notebook.scrollToItem(index, 'center');
        }"""
    )
    handle = page.locator(".widget-slider .noUi-handle").first
    picture = page.locator(".jp-OutputArea .widget-output img").first
    picture.wait_for()
    number, before = page.locator(".widget-readout").first, picture.get_attribute("src")
    slice_before = int(number.inner_text())
    handle.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "before => { const img = document.querySelector('.jp-OutputArea .widget-output img');"
        " return img && img.src !== before; }",
        arg=before,
    )
    assert int(number.inner_text()) == slice_before + 1
