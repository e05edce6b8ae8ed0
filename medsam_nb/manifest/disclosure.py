"""What a model has seen before it is measured: a data set that it was trained on is no test of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from medsam_nb.manifest.rows import DataSet, Manifest


@dataclass(frozen=True)
class Seen:
    """A data set that a model was trained on.

    Attributes
    ----------
    model, data_set : str
    where : str
        Where that is published.
    verified : bool
        Whether the row counts it as checked at the source.
    """

    model: str
    data_set: str
    where: str
    verified: bool


def seen(manifest: Manifest, data_sets: Sequence[str], models: Sequence[str]) -> list[Seen]:
    """Return the pairs of a model and a data set that it was trained on, by `seen_by` of the rows.

    Raises
    ------
    ManifestError
        If a name is not in the manifest.
    """
    found = []
    for model in models:
        line = _line(manifest, model)
        for name in data_sets:
            row = manifest.data_set(name)
            for one in line:
                if one in row.seen_by:
                    verified = not any(fact.startswith("seen_by") for fact in row.unverified)
                    found.append(Seen(model, name, row.seen_by[one], verified))
    return found


def _line(manifest: Manifest, model: str) -> list[str]:
    """Return a model and all that it descends from by fine-tuning: it has seen what they saw."""
    line = [model]
    made = None if model in manifest.label_maps else manifest.checkpoint(model).fine_tuned
    while made is not None and made.parent not in line:
        line.append(made.parent)
        parent = manifest.checkpoints.get(made.parent)
        made = parent.fine_tuned if parent else None
    return line


def _training_data(manifest: Manifest, model: str) -> str:
    """Return how far it is known what a model was trained on; see `Checkpoint.medical_images`."""
    if model in manifest.label_maps:
        return "unknown" if manifest.label_maps[model].made_by == "program" else "none"
    return manifest.checkpoint(model).medical_images


def _may_be_seen(row: DataSet) -> bool:
    """Whether a model may have been trained on a row's images: they exist outside of this package."""
    return row.access != "embedded"


def seen_warnings(manifest: Manifest, data_sets: Sequence[str], models: Sequence[str]) -> list[str]:
    """Return what a report must say of models that are measured on images they may know.

    Parameters
    ----------
    manifest : Manifest
    data_sets, models : sequence of str
        That are measured together; rows of label maps count as models.

    Returns
    -------
    list of str
        A sentence per model that was trained on a data set, with where that is published; and a sentence
        per model whose training data nobody has listed here, for the data sets that then remain open. Empty
        where all models are known to have seen none of the data.

    Raises
    ------
    ManifestError
        If a name is not in the manifest.
    """
    pairs, sentences = seen(manifest, data_sets, models), []
    for model in dict.fromkeys(models):
        known = {pair.data_set: pair for pair in pairs if pair.model == model}
        if known:
            places = [
                f"{pair.data_set} ({pair.where}{'' if pair.verified else '; unverified'})"
                for pair in known.values()
            ]
            sentences.append(
                f"{model} was trained on images of {_listed(places)}: what it reaches there says how well it "
                "fits its training data, not how it does on new images."
            )
        made = None if model in manifest.label_maps else manifest.checkpoint(model).fine_tuned
        if made:
            shared = [name for name in dict.fromkeys(data_sets) if name in made.data_sets]
            if shared:
                sentences.append(
                    f"{model} was fine-tuned on other patients of {_listed(shared)}: it knows how such "
                    "images look, and is measured on patients that it has not seen."
                )
        listed = _training_data(manifest, model)
        open_sets = [
            name
            for name in dict.fromkeys(data_sets)
            if name not in known and _may_be_seen(manifest.data_set(name))
        ]
        if open_sets and listed in ("partly_listed", "unknown"):
            how = "only partly" if listed == "partly_listed" else "not"
            sentences.append(
                f"Which medical images {model} was trained on is {how} known here: that it has seen images "
                f"of {_listed(open_sets)} cannot be ruled out."
            )
    return sentences


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
