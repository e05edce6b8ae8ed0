"""A person's way through the explorer, in JupyterLab in a real browser, and its replay without one.

Open, click inside, click outside, drag a box, undo, choose, propagate, correct, propagate again, save,
reopen; then the saved files give the same masks, bit for bit, to a program that has no screen. CI sets
MEDSAM_NB_REQUIRE_BROWSER, and then nothing here is skipped; MEDSAM_NB_SCREENSHOTS names a folder for
pictures.
"""

import os
import shutil
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers.lab import CHROMIUM, NO_CHROMIUM, jupyterlab, skip_or_fail

from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.models.checkpoints import load_model
from medsam_nb.workbook.explorer_replay import read_log, replay
from medsam_nb.workbook.explorer_scene import scene_of_case
from medsam_nb.workbook.explorer_session import Session

ROOT = Path(__file__).parents[2]
MANIFEST = load_manifest(ROOT / "data_manifest.yaml")
DATA_SET = "simulated_ct"
CANVAS = "canvas"  # within the widget's figure: the last one takes the mouse
READY = """() => {
  const panel = window.jupyterapp && window.jupyterapp.shell.currentWidget;
  if (!panel || !panel.context || !panel.context.isReady) return false;
  const session = panel.sessionContext.session;
  return !!(session && session.kernel && session.kernel.status === 'idle');
}"""

RUN = """() => {
  const panel = window.jupyterapp.shell.currentWidget;
  const cells = panel.context.model.toJSON().cells.filter(cell => cell.cell_type === 'code');
  const idle = panel.sessionContext.session.kernel.status === 'idle';
  return idle && cells.every(cell => cell.execution_count);
}"""


@pytest.fixture(scope="module")
def workbook(tmp_path_factory):
    """A copy of the workbook's folder with one prepared data set."""
    skip_or_fail(NO_CHROMIUM)
    root = tmp_path_factory.mktemp("workbook")
    (root / "notebooks").mkdir()
    shutil.copy(ROOT / "data_manifest.yaml", root)
    shutil.copy(ROOT / "notebooks" / "10_explore_prompts.ipynb", root / "notebooks")
    prepare(MANIFEST.data_set(DATA_SET), root, root / "data" / "prepared", progress=False)
    return root


@pytest.fixture(scope="module")
def lab(workbook):
    """Address of a JupyterLab on the copy."""
    with jupyterlab(workbook) as address:
        yield address


class Person:
    """What a person does with mouse and buttons; what was done is read from the kept text of the session."""

    def __init__(self, page, lab, root):
        self.page, self.lab, self.root, self.shots = page, lab, root, 0
        self.kept = root / "runs" / "demo" / "explore" / f"{DATA_SET}_{case_of(root).name}.session.jsonl"

    def open(self):
        """Open the notebook and run it."""
        address = f"{self.lab}lab/workspaces/ten/tree/notebooks/10_explore_prompts.ipynb"
        self.page.goto(address, wait_until="domcontentloaded")
        self.page.wait_for_function(READY, timeout=90_000)
        self.page.locator(".lm-MenuBar-itemLabel", has_text="Run").click()
        self.page.locator(".lm-Menu-itemLabel").get_by_text("Run All Cells", exact=True).click()
        self.page.wait_for_function(RUN, timeout=180_000)
        self.scroll_to("workbook.Explorer(")
        self.figure = self.page.locator(".jupyter-matplotlib").first
        self.figure.wait_for()
        self.page.wait_for_timeout(1500)

    def scroll_to(self, source):
        """Show the cell that holds some source."""
        self.page.evaluate(
            """source => {
              const notebook = window.jupyterapp.shell.currentWidget.content;
              const index = notebook.widgets.findIndex(
                cell => cell.model.sharedModel.source.includes(source));
              notebook.activeCellIndex = index;
              return notebook.scrollToItem(index, 'start');
            }""",
            source,
        )

    def done(self):
        return read_log(self.kept) if self.kept.exists() else []

    def wait_for(self, action, seconds=60):
        """Wait until the session has noted one more action; return it."""
        before, until = len(self.done()), time.monotonic() + seconds
        action()
        while time.monotonic() < until:
            if len(self.done()) > before:
                return self.done()[-1]
            self.page.wait_for_timeout(50)
        self.picture("stuck")
        raise AssertionError(f"nothing happened; so far {self.done()}")

    def at(self, x, y):
        """Return where a share of the figure lies on the page."""
        box = self.figure.locator(CANVAS).last.bounding_box()
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def click(self, x, y):
        return self.wait_for(lambda: self.page.mouse.click(*self.at(x, y)))

    def drag(self, start, end):
        def act():
            self.page.mouse.move(*self.at(*start))
            self.page.mouse.down()
            for share in np.linspace(0, 1, 6):
                point = tuple(a + share * (b - a) for a, b in zip(start, end, strict=True))
                self.page.mouse.move(*self.at(*point))
                self.page.wait_for_timeout(60)
            self.page.mouse.up()

        return self.wait_for(act)

    def mode(self, name):
        self.page.locator(".widget-toggle-button", has_text=name).first.click()
        self.page.wait_for_timeout(300)

    def button(self, name):
        self.page.locator("button.widget-button").get_by_text(name, exact=True).first.click()

    def propagate(self):
        """Press the button, and wait until the explorer says that it is done."""
        assert self.wait_for(lambda: self.button("propagate"), 120)["do"] == "propagate"
        self.page.get_by_text("propagated to every slice", exact=True).wait_for()
        self.page.wait_for_timeout(500)

    def picture(self, name):
        if folder := os.environ.get("MEDSAM_NB_SCREENSHOTS"):
            self.page.wait_for_timeout(800)
            self.shots += 1
            self.page.screenshot(path=Path(folder) / f"{self.shots:02d}_{name}.png")


def case_of(root):
    return case_folders(root / "data" / "prepared", DATA_SET)[0]


def test_the_whole_way_of_a_person_and_its_replay(workbook, lab):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1500, "height": 1400})
        page.set_default_timeout(60_000)
        person = Person(page, lab, workbook)
        person.open()
        person.picture("opened")
        inside = person.click(0.31, 0.39)
        assert inside["do"] == "point" and inside["positive"]
        person.picture("inside")
        person.mode("point outside")
        outside = person.click(0.47, 0.36)
        assert outside["do"] == "point" and not outside["positive"] and outside["x"] > inside["x"]
        person.picture("outside")
        person.mode("box")
        box = person.drag((0.195, 0.235), (0.345, 0.53))
        assert (
            box["do"] == "box" and box["x0"] < inside["x"] < box["x1"] and box["y0"] < inside["y"] < box["y1"]
        )
        person.picture("box")
        assert person.wait_for(lambda: person.button("undo"))["do"] == "undo"
        assert person.wait_for(lambda: person.button("redo"))["do"] == "redo"
        assert person.click(0.87, 0.15) == {"do": "choose", "number": 0}
        person.picture("chosen")
        person.propagate()
        person.picture("propagated")
        person.mode("point inside")
        page.mouse.move(*person.at(0.31, 0.39))
        page.mouse.wheel(0, -120)
        page.wait_for_timeout(1500)
        assert person.done()[-1]["do"] == "go"
        corrected = person.click(0.31, 0.42)
        assert corrected["do"] == "point"
        person.propagate()
        person.picture("corrected")
        person.button("save")
        saved = person.kept.with_name(person.kept.name.replace(".session.jsonl", "_prompts.jsonl"))
        until = time.monotonic() + 30
        while not list(person.kept.parent.glob("masks/*/anat/*byHand*.nii.gz")) and time.monotonic() < until:
            page.wait_for_timeout(200)
        person.picture("saved")
        log = person.done()
        person.scroll_to("workbook.SideBySide(")
        page.get_by_text("draw again", exact=True).click()
        page.get_by_text("Dice of the two, this slice").wait_for()
        person.picture("side_by_side")
        person.open()  # again: the session is as it was
        person.picture("reopened")
        assert person.done() == log
        browser.close()

    model = load_model(MANIFEST.checkpoint("miniature_sam2"), ROOT / "weights", device="cpu")
    scene = scene_of_case(case_of(workbook))
    replayed = replay(Session(model, scene), log)
    loaded = Session(model, scene)
    loaded.load(saved)
    loaded.propagate()
    (path,) = person.kept.parent.glob("masks/*/anat/*byHand*.nii.gz")
    seen = np.asarray(nib.load(path).dataobj)
    assert 0 < seen.sum() < seen.size
    for session in (replayed, loaded):
        (written,) = session.save_masks(workbook / "replayed")
        np.testing.assert_array_equal(np.asarray(nib.load(written).dataobj), seen)
