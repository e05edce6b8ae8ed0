"""Executed notebooks as pages, for those who want to see every step."""

from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from traitlets.config import Config

from medsam_nb.errors import InputError
from medsam_nb.files import write_study_file


def export_html(executed: Path) -> Path:
    """Convert an executed notebook to HTML beside it; cells tagged "hide-input" show output only."""
    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_input_tags = ("hide-input",)
    config.HTMLExporter.preprocessors = ["nbconvert.preprocessors.TagRemovePreprocessor"]
    try:
        notebook = nbformat.read(executed, as_version=4)
        body, _ = HTMLExporter(config=config).from_notebook_node(notebook)
    except Exception as error:  # of any kind, as damage is
        raise InputError(executed, f"is no notebook ({error}).", "Run it again.") from error
    write_study_file(executed.with_suffix(".html"), body.encode())
    return executed.with_suffix(".html")
