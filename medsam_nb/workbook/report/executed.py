"""Executed notebooks as pages, for those who want to see every step."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from traitlets.config import Config

from medsam_nb.errors import InputError
from medsam_nb.files import write_study_file

VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"


def export_html(executed: Path) -> Path:
    """Convert an executed notebook to HTML beside it; cells tagged "hide-input" show output only.

    A widget, which needs a running notebook, becomes the pictures that it showed.
    """
    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_input_tags = ("hide-input",)
    config.HTMLExporter.preprocessors = ["nbconvert.preprocessors.TagRemovePreprocessor"]
    try:
        notebook = nbformat.read(executed, as_version=4)
        _still(notebook)
        body, _ = HTMLExporter(config=config).from_notebook_node(notebook)
    except Exception as error:  # of any kind, as damage is
        raise InputError(executed, f"is no notebook ({error}).", "Run it again.") from error
    write_study_file(executed.with_suffix(".html"), body.encode())
    return executed.with_suffix(".html")


def _still(notebook: nbformat.NotebookNode) -> None:
    """Put what widgets showed when the notebook was saved in their place; in place."""
    states = notebook.metadata.pop("widgets", {}).get(STATE, {}).get("state", {})
    for cell in notebook.cells:
        outputs = []
        for output in cell.get("outputs", []):
            view = output.get("data", {}).get(VIEW)
            outputs += list(_shown(view["model_id"], states)) if view else [output]
        if "outputs" in cell:
            cell.outputs = outputs


def _shown(model: str, states: Mapping[str, Mapping]) -> Iterator[nbformat.NotebookNode]:
    """Give the outputs that a widget holds, and those within it."""
    state = states.get(model, {}).get("state", {})
    for output in state.get("outputs", []):
        yield nbformat.from_dict(output)
    for child in state.get("children", []):
        yield from _shown(str(child).removeprefix("IPY_MODEL_"), states)
