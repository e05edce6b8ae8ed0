"""A manifest row whose files lie on a server, for tests of downloads."""

from medsam_nb.manifest.rows import DataSet


def download_row(files: list[dict], **changes) -> DataSet:
    """Return a row with these files; `changes` replace its fields."""
    fields = {
        "name": "set", "title": "A set", "modality": "CT", "dimension": 3, "objects": {"organ": [1]},
        "intensity": {"policy": "min_max"}, "layout": {"name": "nifti_pairs"}, "access": "open",
        "files": files,
    }  # fmt: skip
    return DataSet.model_validate(fields | changes)
