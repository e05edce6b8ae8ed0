"""What differs from running sam2 oneself: sentences for a methods text, from the record of a run."""

from collections.abc import Mapping
from dataclasses import replace

from medsam_nb.protocol.options import TRAINED_MEMORIES, TRAINED_POINTERS, MemoryWindow, PropagationOptions

RESIZED = {
    "image": "They are resized by the transform of SAM 2's image predictor (antialiased bilinear, on "
    "floats), as in 2D; the package's loader of video folders uses a bicubic filter on 8 bits.",
    "video": "They are resized as the package's loader of video folders does (bicubic, on 8 bits).",
}
FIRST_MASK = {
    "all": "on every slice",
    "prompted": "on prompted slices; on the others the most confident one is kept",
    "all_with_boxes": "on every slice, and also where a slice is prompted with a box or two points, for "
    "which the package gives one mask only",
}


def differences_from_sam2(record: Mapping) -> list[str]:
    """Return what differs between a run and running the sam2 package oneself, a sentence each.

    Given the same inputs, predictions are those of the official predictors, bit for bit; what is said here is
    how the inputs, and what is kept of the outputs, differ from the package's own defaults.

    Parameters
    ----------
    record : mapping
        As `units.provenance` gives it: `parameters` (in 3D with `designs`, and with `options` or the fields
        of `PropagationOptions` themselves), `dtype`, `hole_filling`.
    """
    parameters = record.get("parameters", {})
    if not {"designs", "options", "loops"} & set(parameters):
        return _in_2d()
    options = PropagationOptions().as_dict()
    given = parameters.get("options") or parameters
    options |= {name: value for name, value in given.items() if name in options}
    slices = (
        "Slices are given as 8-bit arrays, windowed as the data set's row says; the package reads a video "
        f"from JPEG files. {RESIZED[options['frames']]}"
    )
    if "loops" in parameters:
        return [
            slices,
            "Every object is tracked on its own, backward from the prompted slice and forward from the next, "
            "each pass with a state of its own.",
            "A corrected slice stays prompted (`add_all_frames_to_correct_as_cond`): by the package's "
            "default a correction is lost when its slice is tracked again (facebookresearch/sam2, issue "
            "731).",
            *_hole_filling(set(record.get("hole_filling", []))),
            *_arithmetic(options, record.get("dtype", [])),
        ]
    return [
        slices,
        "Every object is tracked on its own, and every pass starts from the prompts alone.",
        *_mask_choice(options, parameters.get("designs")),
        "Front to end means from slice 0 to the last, before the prompted slice too; bidirectional means "
        "backward from the prompted slice (of three the middle one) and forward from the next, as two "
        "passes. The package by default makes one pass forward from the first prompted slice.",
        *_choice_of_slices(options),
        *_hole_filling(set(record.get("hole_filling", []))),
        *_arithmetic(options, record.get("dtype", [])),
        *_window(MemoryWindow(**options["window"])),
    ]


def _in_2d() -> list[str]:
    return [
        "Slices are given to the image predictor as 8-bit arrays, windowed as the data set's row says, not "
        "as JPEG files; they are resized by the predictor's own transform.",
        "Three candidate masks are asked for with every prompt, boxes too; several boxes are several calls, "
        "whose masks are united.",
    ]


def _mask_choice(options: Mapping, designs: object) -> list[str]:
    """Return what "first mask" changes in the package, where a run may have it."""
    named = [designs] if isinstance(designs, str) else list(designs or ["all"])
    if all("/" in str(name) and "first_mask" not in str(name) for name in named):
        return []
    return [
        "The package keeps the candidate mask of the highest estimated IoU; designs with the first mask "
        f"keep the first, with its object pointer, {FIRST_MASK[options['mask_scope']]}."
    ]


def _choice_of_slices(options: Mapping) -> list[str]:
    if options["protocol"] != "released":
        return []
    return ["Three slices are chosen as the study's released scripts choose them."]


def _hole_filling(filled: set[bool]) -> list[str]:
    if filled == {True}:
        return []
    where = {frozenset({False}): "in all units", frozenset({True, False}): "in a part of the units"}
    return [
        f"Small holes in masks were not filled ({where.get(frozenset(filled), 'not recorded')}): that needs "
        "sam2's CUDA extension, without which the package leaves it out with a warning."
    ]


def _arithmetic(options: Mapping, dtypes: list[str]) -> list[str]:
    found = []
    if "float32" in dtypes:
        found.append(
            "In float32, memories, which the package stores as bfloat16, are read as float32, where the "
            "package stops with an error on slices before the first prompted one (facebookresearch/sam2, "
            "issue 308)."
        )
    if options["attention"] == "blocked":
        found.append("Memory attention ran in blocks, which is faster and not bit for bit the package's.")
    if options["kernels"] == "compiled":
        found.append(
            "What tracks a slice (memory attention, mask decoder, memory encoder) was compiled by PyTorch's "
            "compiler, which is not bit for bit the package."
        )
    if options["branches_at_once"] > 1:
        found.append(
            f"Up to {options['branches_at_once']} designs and objects of a volume were tracked in one call, "
            "which is faster and rounds differently from the package's one at a time."
        )
    return found


def _window(window: MemoryWindow) -> list[str]:
    """Return how a memory window differs from the released model's."""
    if window == MemoryWindow():
        return []
    if window.remembered == "nothing":
        return ["No slice was tracked: every slice was prompted and predicted from its prompt alone."]
    true = ["Slices were remembered with their true masks, as if prompted with them; predictions were not."]
    true *= window.remembered == "truth"
    if replace(window, remembered="predictions") == MemoryWindow():
        return true
    said = (
        f"The model looked back at {window.memories} memories (the released model at {TRAINED_MEMORIES}, "
        f"prompted slices counted as one), every {window.stride} slice(s), and at {window.pointers} object "
        f"pointers (released: {TRAINED_POINTERS})"
    )
    beyond = f"; embeddings of time beyond the trained ones are {window.beyond}" * (not window.is_exact)
    return [f"{said}{beyond}.", *true]
