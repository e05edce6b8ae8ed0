"""nnU-Net's raw format, versions 1 and 2: what `dataset.json` says decides names, channels and labels."""

import re
from collections.abc import Mapping
from pathlib import Path

from medsam_nb.data.names import clean_name, natural, visible
from medsam_nb.data.sources import Source
from medsam_nb.errors import InputError
from medsam_nb.files import read_json
from medsam_nb.manifest.rows import DataSet

ONE_FOLDER = "Put one data set there, with its dataset.json beside imagesTr and labelsTr."


def find_nnunet(folder: Path, row: DataSet) -> list[Source]:
    """Find the training cases; an image or mask without its partner is a case that fails."""
    lists = visible(folder.rglob("dataset.json"))
    if len(lists) != 1:
        raise InputError(folder, f"holds {len(lists)} files dataset.json.", ONE_FOLDER)
    (path,) = lists
    described = read_json(path)
    _require_labels(path, labels_of(path, described), row)
    channel = _channel(path, described, row)
    if isinstance(described.get("dataset"), Mapping):
        return [_listed(path, case, files, channel) for case, files in described["dataset"].items()]
    return _by_name(path.parent, channel, file_ending(path, described))


def labels_of(path: Path, described: Mapping) -> dict[str, list[int]]:
    """Return the label values of each name in a `dataset.json`: {name: value or values}, or {value: name}.

    Raises
    ------
    InputError
        If it says neither.
    """
    labels = described.get("labels")
    try:
        if all(isinstance(value, str) and key.isdecimal() for key, value in labels.items()):  # version 1
            return {name: [int(value)] for value, name in labels.items()}
        return {
            name: [int(value) for value in (values if isinstance(values, list) else [values])]
            for name, values in labels.items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            path, f"its `labels` are no names with label values ({error}).", "Correct the file."
        ) from error


def channels_of(path: Path, described: Mapping) -> dict[int, str]:
    """Return the names of the input channels by number ("channel_names", or "modality" in version 1)."""
    named = described.get("channel_names", described.get("modality"))
    try:
        return {int(number): str(name) for number, name in named.items()}
    except (AttributeError, ValueError) as error:
        raise InputError(
            path, "names no channels (`channel_names`, or `modality`).", "Correct the file."
        ) from error


def file_ending(path: Path, described: Mapping) -> str:
    """Return the ending of all files; version 1 knows only .nii.gz."""
    ending = described.get("file_ending", ".nii.gz")
    if not isinstance(ending, str) or not re.fullmatch(r"(\.\w+)+", ending):
        raise InputError(path, f"its `file_ending` is {ending!r}.", "Write, for example, .nii.gz.")
    return ending


def _require_labels(path: Path, labels: Mapping[str, list[int]], row: DataSet) -> None:
    """Raise InputError where the row's objects are not those of the data set."""
    known = {value for values in labels.values() for value in values}
    said = ", ".join(f"{name} {values[0] if len(values) == 1 else values}" for name, values in labels.items())
    absent = sorted({value for values in row.objects.values() for value in values} - known)
    if absent:
        problem = f"it has the labels {said}; the row {row.name} also names {', '.join(map(str, absent))}."
        raise InputError(path, problem, "Correct `objects` in the manifest row, or the folder.")
    for name, values in labels.items():
        if not set(values) <= set(row.objects.get(name, values)):
            problem = f"its {name} is {values}, that of the row {row.name} {row.objects[name]}."
            raise InputError(path, problem, "Correct `objects` in the manifest row, or use another name.")


def _channel(path: Path, described: Mapping, row: DataSet) -> int:
    """Return the number of the channel that a row chooses, or of the only one."""
    channels, wanted = channels_of(path, described), row.layout.channel
    if wanted is None and len(channels) == 1:
        return next(iter(channels))
    fitting = [
        number for number, name in channels.items() if wanted == number or str(wanted).lower() == name.lower()
    ]
    if len(fitting) != 1:
        listed = ", ".join(f"{number} ({name})" for number, name in channels.items())
        problem = f"it has the channels {listed}" + ("." if wanted is None else f", not {wanted!r}.")
        raise InputError(path, problem, "Choose one: `channel: 0` in the layout of the manifest row.")
    return fitting[0]


def _by_name(base: Path, channel: int, ending: str) -> list[Source]:
    """Pair `imagesTr/<case>_<channel><ending>` with `labelsTr/<case><ending>`."""
    images, masks = base / "imagesTr", base / "labelsTr"
    image_name = re.compile(rf"(.+)_{channel:04d}{re.escape(ending)}")
    named = [image_name.fullmatch(path.name) for path in visible(images.glob("*"))]
    cases = {match[1] for match in named if match}
    cases |= {
        path.name.removesuffix(ending) for path in visible(masks.glob("*")) if path.name.endswith(ending)
    }
    if not any(named):
        raise InputError(
            images,
            f"holds no image <case>_{channel:04d}{ending}.",
            "Look at `file_ending` in dataset.json. Files without a number of the channel are those of "
            "the layout `msd`.",
        )
    return [
        Source(clean_name(case), images / f"{case}_{channel:04d}{ending}", (masks / f"{case}{ending}",))
        for case in sorted(cases, key=natural)
    ]


def _listed(path: Path, case: str, files: object, channel: int) -> Source:
    """Return a case whose files `dataset.json` names, relative to its own folder."""
    base, problem = path.parent, None
    try:
        image, mask = (Path(name) for name in (files["images"][channel], files["label"]))
        if any(one.is_absolute() or ".." in one.parts for one in (image, mask)):
            problem = "its files lie outside of the data set's folder"
    except (LookupError, TypeError):
        problem = f"it needs `images` (with channel {channel}) and `label`"
    if problem is not None:
        image = mask = Path("missing")
        problem = (f"{path}, case {case}", f"{problem}.", "Correct its entry under `dataset`.")
    return Source(clean_name(case), base / image, (base / mask,), problem=problem)
