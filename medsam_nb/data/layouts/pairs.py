"""Own data: images and masks that are found by patterns, paired by the name of their case."""

from collections.abc import Sequence
from pathlib import Path

from medsam_nb.data.layouts.patterns import Match, filled, find_matches, literal_length
from medsam_nb.data.names import clean_name, natural, visible
from medsam_nb.data.reading import ARRAYS, DICOM, ITK, NIFTI, PICTURES, suffix_of
from medsam_nb.data.sources import Source, require_found, several
from medsam_nb.manifest.rows import DataSet

# Where the row gives no pattern; each of these endings may be there, and others do not hide a file.
DEFAULTS = {
    "nifti_pairs": ("images/{case}", "labels/{case}"),
    "picture_pairs": ("images/{case}", "masks/{case}"),
}
ENDINGS = {"nifti_pairs": NIFTI[::-1], "picture_pairs": PICTURES}
SHOWN = 6  # files in a note
Key = tuple[str, str]  # patient, or "", and case


def find_pairs(folder: Path, row: DataSet) -> list[Source]:
    """Find images and masks that share a name; one without its partner is a case that fails."""
    patterns = _patterns(row)
    images, masks = _matches(folder, row)
    cases = sorted({*images, *masks}, key=lambda key: [natural(part) for part in key])
    sources = [_source(folder, row, case, images.get(case, ()), masks.get(case, ())) for case in cases]
    looked_for = " and ".join(" or ".join(group) for group in patterns)
    others = unused_files(folder, row, sources)
    return require_found(sources, folder, looked_for + (f"; {others}" if others else ""))


def find_arrays(folder: Path, row: DataSet) -> list[Source]:
    """Find files of arrays; a file holds image and mask, unless the row says where the masks lie."""
    if row.layout.masks is not None:
        return find_pairs(folder, row)
    sources = []
    for match in find_matches(folder, row.layout.images):
        patient = match.values.get("patient", "")
        called = "_".join(filter(None, (patient, match.values["case"])))
        sources.append(Source(clean_name(called), match.path, (match.path,), patient=patient))
    others = unused_files(folder, row, sources)
    return require_found(sources, folder, row.layout.images + (f"; {others}" if others else ""))


def _patterns(row: DataSet) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the patterns of images and masks; of a default one for each ending."""
    layout = row.layout
    if layout.name not in DEFAULTS:
        return (layout.images,), (layout.masks or layout.images,)
    return tuple(
        (given,) if given else tuple(default + ending for ending in ENDINGS[layout.name])
        for given, default in zip((layout.images, layout.masks), DEFAULTS[layout.name], strict=True)
    )


def _matches(folder: Path, row: DataSet) -> tuple[dict[Key, list[Match]], dict[Key, list[Match]]]:
    """Return images and masks by patient and case; a file that fits both patterns is what it fits closest."""
    images, masks = _patterns(row)
    of_images = [match for pattern in images for match in find_matches(folder, pattern)]
    names = {"case": {match.values["case"] for match in of_images}, "object": set(row.objects)}
    of_masks = [match for pattern in masks for match in find_matches(folder, pattern, names)]
    masks_win = literal_length(masks[0]) >= literal_length(images[0])
    loser, winner = (of_images, of_masks) if masks_win else (of_masks, of_images)
    taken = {match.path for match in winner}
    loser[:] = [match for match in loser if match.path not in taken]
    grouped: tuple[dict, dict] = ({}, {})
    for group, matches in zip(grouped, (of_images, of_masks), strict=True):
        for match in matches:
            group.setdefault((match.values.get("patient", ""), match.values["case"]), []).append(match)
    return grouped


def _source(folder: Path, row: DataSet, key: Key, images: Sequence[Match], masks: Sequence[Match]) -> Source:
    """Return a case; what is missing is named by where it was looked for."""
    patient, case = key
    called, values = "_".join(filter(None, key)), {"patient": patient, "case": case}
    image, mask = (
        _like(partner, patterns) for partner, patterns in zip((masks, images), _patterns(row), strict=True)
    )
    by_object, parts = "{object}" in mask, "{part}" in mask
    problem = several(folder, called, [match.path for match in images])
    if not by_object and not parts:
        problem = problem or several(folder, called, [match.path for match in masks])
    rule, names = "any" if parts else "labels", ()
    if by_object and masks:
        order = list(row.objects)
        masks = sorted(masks, key=lambda match: order.index(match.values["object"]))
        rule, names = "by_object", tuple((match.values["object"], "") for match in masks)
    return Source(
        clean_name(called),
        images[0].path if images else folder / filled(image, values),
        tuple(match.path for match in masks) or (folder / filled(mask, values),),
        rule,
        names,
        problem,
        patient,
    )


def _like(matches: Sequence[Match], patterns: Sequence[str]) -> str:
    """Return the pattern with the ending of a case's other file, or the first."""
    endings = [suffix_of(match.path) for match in matches]
    return next((pattern for pattern in patterns if suffix_of(Path(pattern)) in endings), patterns[0])


def unused_files(folder: Path, row: DataSet, sources: Sequence[Source]) -> str:
    """Return in words which image files lie where the patterns look and belong to no case; "" for none."""
    used = {path for source in sources for path in (source.image, *source.masks)}
    series = {path for path in used if path.is_dir()}
    places = {folder / _fixed_part(pattern) for group in _patterns(row) for pattern in group}
    known = (*NIFTI, *ITK, *PICTURES, *DICOM, *ARRAYS)
    files = {path for place in places for path in place.rglob("*") if suffix_of(path) in known}
    left = [path for path in visible(files - used) if path.is_file() and not series & set(path.parents)]
    if not left:
        return ""
    shown = ", ".join(path.relative_to(folder).as_posix() for path in left[:SHOWN])
    return f"{len(left)} files fit no pattern: {shown}{', ...' if len(left) > SHOWN else ''}"


def _fixed_part(pattern: str) -> str:
    """Return the folders of a pattern before its first placeholder."""
    parts = pattern.split("/")[:-1]
    free = next((number for number, part in enumerate(parts) if "{" in part), len(parts))
    return "/".join(parts[:free])
