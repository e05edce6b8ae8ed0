"""One case from its files to its folder: checked against its row, turned as it is looked at, recorded."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from math import ceil
from pathlib import Path

import numpy as np

from medsam_nb.data import formats, mosaics, quality
from medsam_nb.data.layouts.readers import read_case
from medsam_nb.data.names import require_component
from medsam_nb.data.prepared import CASE_FILES, is_unchanged, read_record, write_case, write_record
from medsam_nb.data.sources import RawCase, Source
from medsam_nb.errors import InputError, WorkbookError, printable
from medsam_nb.files import remove_made
from medsam_nb.manifest.layouts import ArraysLayout
from medsam_nb.manifest.rows import DataSet
from medsam_nb.protocol import intensity
from medsam_nb.protocol.volume import Case, Volume, canonical, reoriented, slice_plane
from medsam_nb.provenance import PREPARED_CASES, READING_PACKAGES, code_sha256, package_versions

# What decides a prepared case besides its files; the rest of a row may be edited freely.
DECIDING_FIELDS = {
    "name", "modality", "dimension", "objects", "ignored_labels", "slice_axis", "intensity",
    "mask_threshold", "mask_colours", "mask_geometry", "may_be_empty", "colour", "margin_mm",
}  # fmt: skip
SAME_NUMBER = 1e-6  # a margin of 9 mm is three slices of 3 mm, whatever rounding says
MANY_LABELS = 40  # more that no row names are rather the grey levels of an image


class NoObject(InputError):
    """A case of a data set in which cases without an object belong; it is not a failure."""


def build_case(row: DataSet, case_id: str, raw: RawCase, patient_id: str = "") -> Case:
    """Return a case in display order, checked against its row; without a patient it is its own.

    Raises
    ------
    InputError
        If a label is not named by the row, no object is there (`NoObject` where the row allows it),
        the image shows nothing, or the dimension is another.
    """
    present = [int(v) for v in np.unique(raw.labels.array) if v]
    if not present and row.may_be_empty:
        raise NoObject(case_id, "no object in this case.", "It is left out, as in the study.")
    known = {value for values in raw.objects.values() for value in values}
    unnamed = [value for value in present if value not in known and value not in row.ignored_labels]
    if unnamed:
        counts = ", ".join(f"{v} ({int((raw.labels.array == v).sum())} voxels)" for v in unnamed[:8])
        raise InputError(
            case_id,
            f"the mask has labels that the manifest row {row.name} does not name: {counts}.",
            "Add them to `objects`, or to `ignored_labels`."
            + (" A JPEG blurs edges: set `mask_threshold` in the row, such as 128." if raw.lossy else "")
            + (f" {formats.SWAPPED}" if len(unnamed) > MANY_LABELS else ""),
        )
    few = _few_values(raw.image.array, len(known) + 1)
    if len(few) == 1:
        problem = f"all voxels have the value {few[0]:g}."
        raise InputError(case_id, problem, "Give an image that shows something.")
    if few:
        raise InputError(
            case_id,
            f"the image holds only the values {', '.join(f'{value:g}' for value in few)}, like a mask.",
            "Look whether image and mask have changed places.",
        )
    objects = {name: values for name, values in raw.objects.items() if set(values) & set(present)}
    if present and not objects:
        raise InputError(case_id, "the mask holds none of the row's objects.", "Remove the case.")
    image = canonical(raw.image, row.slice_axis)
    labels, colours = raw.labels, raw.colours
    if image.orientation != raw.image.orientation:
        labels = reoriented(labels, image.orientation)
        colours = reoriented(colours, image.orientation) if colours else None
    depth, height, width = image.array.shape
    if (depth == 1) != (row.dimension == 2) or min(height, width) == 1:
        raise InputError(
            case_id,
            f"has {depth} slice(s) of {height} x {width} pixels, but the manifest row {row.name} says "
            f"dimension {row.dimension}.",
            "Correct `dimension` or `slice_axis` in the row.",
        )
    kept, affine = slice(None), image.affine
    if row.margin_mm is not None and objects:
        kept = _kept_slices(row.margin_mm, labels, objects, image.spacing_mm[0])
        affine = affine.copy()
        affine[:3, 3] += kept.start * affine[:3, 0]
    return Case(
        row.name,
        case_id,
        row.modality,
        Volume(np.ascontiguousarray(image.array[kept], np.float32), affine),
        np.ascontiguousarray(formats.as_labels(labels, case_id).array[kept]),  # one number type, one hash
        objects,
        row.intensity,
        patient_id,
        None if colours is None else np.ascontiguousarray(colours.array[kept]),
    )


def _kept_slices(
    margin_mm: float, labels: Volume, objects: Mapping[str, tuple[int, ...]], slice_mm: float
) -> slice:
    """Return the slices from a margin before the first labelled one to a margin after the last.

    At least one slice is kept on either side, so that what runs on beyond an object can be seen.
    """
    values = sorted({value for group in objects.values() for value in group})
    held = np.flatnonzero(np.isin(labels.array, values).any(axis=(1, 2)))
    margin = max(1, ceil(margin_mm / slice_mm - SAME_NUMBER))
    return slice(max(0, int(held[0]) - margin), min(len(labels.array), int(held[-1]) + margin + 1))


def _cut(row: DataSet, case: Case, raw: RawCase) -> dict | None:
    """Return which slices of the source a case holds, or None where it holds all of them."""
    whole = canonical(raw.image, row.slice_axis)
    kept, of = len(case.labels), whole.array.shape[0]
    if kept == of:
        return None
    first = int(np.rint(np.linalg.solve(whole.affine, case.image.affine)[0, 3]))
    return {
        "margin_mm": row.margin_mm, "first_slice": first, "last_slice": first + kept - 1, "of_slices": of
    }  # fmt: skip


def _few_values(array: np.ndarray, most: int) -> list[float]:
    """Return the values of an array that holds no more than `most` different ones, else nothing."""
    found = np.unique(array.ravel()[:: max(1, array.size // 4096)])  # most images are told by a few voxels
    if len(found) <= most:
        found = np.unique(array)
    return found.tolist() if len(found) <= most and np.isfinite(found).all() else []


def _fingerprint(row: DataSet, case_id: str, source: Source | None) -> str:
    """Hash of all that decides a case: row, code, and its files by name, size and time."""
    parts: list = [row.model_dump(mode="json", include=DECIDING_FIELDS), case_id]
    parts += [code_sha256(*PREPARED_CASES), package_versions(READING_PACKAGES)]
    if source is None:
        parts.append(row.layout.model_dump(mode="json"))
    else:
        files = [path for path in source.files() if path.exists()]
        parts.append([source.rule, source.names, source.problem, getattr(row.layout, "frame", None)])
        if isinstance(row.layout, ArraysLayout):  # which arrays of a file, and how they lie
            parts.append(row.layout.model_dump(mode="json"))
        parts.append([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files])
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _files_sha256(source: Source | None) -> str:
    """Hash of the bytes of a case's files, or "" for an embedded one."""
    if source is None:
        return ""
    digest = hashlib.sha256()
    for path in source.files():
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def line_of(row: DataSet, case_id: str) -> dict:
    """Return the columns of the case table that the row decides."""
    return {"data_set": row.name, "case_id": case_id, "modality": row.modality, "accuracy": row.accuracy}


def done_case(
    row: DataSet, case_id: str, source: Source | None, folder: Path, patient_id: str
) -> dict | None:
    """Return the line of a case that is prepared from the same files and has not changed since, or None.

    A prepared case of which only the patient has become another is not made again.
    """
    record = read_record(folder / case_id)
    if record is None or record["data_set"] != row.name:
        return None
    if record["fingerprint"] != _fingerprint(row, case_id, source):
        return None
    if not is_unchanged(folder / case_id, record):
        return None
    if record.get("patient_id") != patient_id:
        write_record(folder / case_id, record | {"patient_id": patient_id})
    made = {"patient_id": patient_id, "status": "ok", "error": ""}
    return line_of(row, case_id) | made | record["line"]


def prepare_case(row: DataSet, case_id: str, source: Source | None, folder: Path, patient_id: str) -> dict:
    """Prepare one case unless it is there already; return its line of the table."""
    line = line_of(row, case_id) | {"patient_id": patient_id}
    try:
        require_component(case_id, "case name")
        done = done_case(row, case_id, source, folder, patient_id)
        if done is None:
            fingerprint = _fingerprint(row, case_id, source)  # of the files before they are read
            raw = read_case(row, case_id, source)
            case = build_case(row, case_id, raw, patient_id)
            record = _record(row, case, raw, source) | {"fingerprint": fingerprint}
            write_case(folder, case, record, mosaics.mosaic_png(case))
            done = line | {"status": "ok", "error": ""} | record["line"]
        return done
    except WorkbookError as error:
        reason, status = str(error), "no_object" if isinstance(error, NoObject) else "failed"
    except Exception as error:  # a case must not stop the others, whatever is wrong with it
        words = printable(" ".join(str(error).split())[:200])
        reason = f"{case_id}: cannot be prepared ({type(error).__name__}: {words}). Look at its files."
        status = "failed"
    remove_case(folder, case_id)
    return line | {"status": status, "error": reason}


def remove_case(folder: Path, case_id: str) -> None:
    """Remove a prepared case that must not pass for what there is now; the table leaves it out anyway."""
    with suppress(ValueError, OSError):
        remove_made(folder / case_id, folder, CASE_FILES)


def _record(row: DataSet, case: Case, raw: RawCase, source: Source | None) -> dict:
    """Return what is written beside the images: provenance, geometry and facts."""
    facts = [quality.object_facts(name, case.mask(name)) for name in case.objects]
    low, high = intensity.limits(case.image.array, case.intensity, case.case_id)
    digest = case.sha256()
    placed = source is None or not _is_picture(row, source)
    plane = slice_plane(raw.image, row.slice_axis) if placed else ""
    doubts = quality.case_doubts(case)
    cut = _cut(row, case, raw)
    words = f"cut to slices {cut['first_slice']} to {cut['last_slice']} of {cut['of_slices']}" if cut else ""
    said = [*raw.remarks, words] if cut else raw.remarks
    warned = [*doubts.values(), *said, *quality.case_warnings(case, facts)]
    return {
        "data_set": case.data_set,
        "case_id": case.case_id,
        "patient_id": case.patient_id,
        "modality": case.modality,
        "coloured": case.colours is not None,
        "objects": {name: list(values) for name, values in case.objects.items()},
        "intensity": asdict(case.intensity) | {"black": low, "white": high},
        "affine_zyx_to_ras_mm": case.image.affine.tolist(),
        "source": {
            "files": [printable(path.name) for path in source.files()] if source else [],
            "shape": list(raw.image.array.shape),
            "affine_zyx_to_ras_mm": raw.image.affine.tolist(),
            "orientation": raw.image.orientation[::-1],  # as (x, y, z), the usual way
        },
        "cut": cut,
        "data_sha256": digest,
        "line": {
            "shape": " x ".join(map(str, case.labels.shape)),
            "n_slices": case.labels.shape[0],
            "labelled_slices": int((case.labels > 0).any(axis=(1, 2)).sum()),
            "spacing_mm": " x ".join(f"{s:.4g}" for s in case.image.spacing_mm) if placed else "",
            "orientation": raw.image.orientation[::-1] if placed else "",  # as (x, y, z), the usual way
            "plane": plane if plane != "stored" else "",
            "objects": json.dumps([asdict(fact) for fact in facts]),
            "warnings": "; ".join(warned),
            "doubts": json.dumps(doubts),
            "data_sha256": digest,
            "files_sha256": _files_sha256(source),
            "image_sha256": _array_sha256(case.image.array if case.colours is None else case.colours),
            "labels_sha256": _array_sha256(case.labels),
        },
    }


def _is_picture(row: DataSet, source: Source) -> bool:
    """Whether a case has no place in space and no millimetres."""
    is_array = isinstance(row.layout, ArraysLayout)
    return row.dimension == 2 if is_array else formats.suffix_of(source.image) in formats.PICTURES


def _array_sha256(array: np.ndarray) -> str:
    """Return the first digits of an array's hash, which tell equal ones."""
    digest = hashlib.sha256(str((array.dtype.str, array.shape)).encode())
    digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()[:20]
