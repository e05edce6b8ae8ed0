"""One model on one case: rows of the tidy table, in 2D (every slice prompted) and 3D (propagated)."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import numpy as np

from medsam_nb.errors import CheckpointError, InputError, require_known
from medsam_nb.evaluation.mask_choices import chosen_masks
from medsam_nb.evaluation.masks import PackedVolumes
from medsam_nb.evaluation.propagation import sweep
from medsam_nb.evaluation.single_slices import candidates
from medsam_nb.models.checkpoints import Model
from medsam_nb.models.features import SliceFeatures
from medsam_nb.protocol import metrics
from medsam_nb.protocol.designs import DESIGN_FACTORS, Design, prompted_slices
from medsam_nb.protocol.metrics import iou
from medsam_nb.protocol.options import PropagationOptions
from medsam_nb.protocol.prompt_sources import GIVEN, PromptSource, parse_source
from medsam_nb.protocol.prompts import Prompt, largest_components, prompt_3d, prompt_seed, prompts_2d
from medsam_nb.protocol.volume import Case

VOLUME_METRICS = ("none", "overlap", "all")
Keep = Callable[[str, str, str, np.ndarray], None]  # of an object: a name, what rows say, the mask (z, y, x)


def object_masks(case: Case, objects: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the masks (z, y, x) of the chosen objects, or of all where none is named."""
    masks = {name: case.mask(name) for name in case.objects if not objects or name in objects}
    if not masks:
        raise InputError(
            f"{case.data_set}/{case.case_id}",
            f"holds none of the chosen objects {', '.join(objects)}.",
            f"It has {', '.join(case.objects)}; change `objects` in the study.",
        )
    return masks


def slice_facts(case: Case, object_name: str) -> dict[int, dict]:
    """Return the columns that describe the object on each slice that holds it."""
    mask = case.mask(object_name)
    return {
        int(index): {
            "object": object_name,
            "slice_index": int(index),
            "n_components": len(largest_components(mask[index], most=mask[index].size)),
            "truth_px": int(mask[index].sum()),
        }
        for index in np.flatnonzero(mask.any((1, 2)))
    }


def require_numbers(values: np.ndarray, model: Model, case: Case, slice_index: int) -> None:
    """Raise CheckpointError for NaN or infinity: thresholded, they would pass for an empty mask."""
    if not np.isfinite(values).all():
        raise CheckpointError(
            f"model {model.name}",
            f"gives NaN or infinity on slice {slice_index} of {case.data_set}/{case.case_id}.",
            "Its weights are of no use here; where they were trained in 32 bits, try `dtype: float32`.",
        )


def case_facts(case: Case, model: Model, task: str, protocol: str) -> dict:
    """Return the columns that all rows of a case, a model and a task have in common."""
    return {
        "task": task,
        "data_set": case.data_set,
        "modality": case.modality,
        "case_id": case.case_id,
        "patient_id": case.patient_id,
        "model": model.name,
        "protocol": protocol,
        "n_slices": case.labels.shape[0],
        "spacing_z_mm": case.image.spacing_mm[0],
    }


def evaluate_2d(
    model: Model,
    case: Case,
    prompts: Sequence[str],
    *,
    seed: int,
    protocol: str = "corrected",
    objects: Sequence[str] = (),
    features: SliceFeatures | None = None,
    prompt_source: str | PromptSource = "truth",
    keep: Keep | None = None,
) -> list[dict]:
    """Prompt every slice that holds an object, each object on its own, and score the masks.

    Parameters
    ----------
    model : Model
    case : Case
    prompts : sequence of str
        See `prompts.PROMPTS_2D`.
    seed : int
        Of the study; ties between points are drawn from it.
    objects : sequence of str
        Evaluate only these of the case's objects; all if empty.
    features : SliceFeatures, optional
        Of the case's slices and this model, to share them between 2D and 3D.
    prompt_source : str or PromptSource
        Where prompts come from; see `prompt_sources.parse_source`. Those of a file have the prompt
        "given", whatever `prompts` says, and only slices that it prompts and that hold the object count.
    keep : callable (object, name, name, mask), optional
        Given the predicted mask, bool (z, y, x), of every object and "prompt/mask_choice"; it is empty where
        nothing was prompted.

    Returns
    -------
    list of dict
        Rows of `table.COLUMNS`, metric "iou": for every object, slice and prompt a row for each of
        `designs.MASK_CHOICES_2D`. Masks of several calls are united after the choice; the score is their
        mean.
    """
    truth = object_masks(case, objects)
    facts = {name: slice_facts(case, name) for name in truth}
    source = parse_source(prompt_source)
    calls: dict[tuple, tuple[int, Prompt]] = {}
    if source.kind == "file":
        for (name, index), prompt in source.given(case).items():
            if index in facts.get(name, ()):
                calls[name, index, GIVEN, 0] = index, _without_mask(prompt, f"{source.path}, slice {index}")
        prompts = ()
    for name in truth:
        for index in facts[name]:
            for mode in prompts:
                mask, parts = truth[name][index], prompt_seed(seed, case, name, index)
                for number, prompt in enumerate(prompts_2d(mask, mode, parts)):
                    prompt = source.displaced(prompt, mask, (*parts, mode, number))
                    calls[name, index, mode, number] = index, prompt

    found: dict[tuple, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for (name, index, mode, _), masks, scores in candidates(
        model, case.slices_uint8(), calls, features=features
    ):
        require_numbers(scores, model, case, index)
        found[name, index, mode].append((masks, scores))

    common = case_facts(case, model, "2d", protocol) | {"metric": "iou", "prompt_source": source.name}
    rows, volumes = [], PackedVolumes(case.labels.shape)
    for (name, index, mode), answers in found.items():
        for choice, (mask, score) in chosen_masks(truth[name][index], answers).items():
            scored = {"value": iou(truth[name][index], mask), "score": score, "predicted_px": int(mask.sum())}
            rows.append(common | facts[name][index] | {"prompt": mode, "mask_choice": choice} | scored)
            if keep is not None:
                volumes.add(name, [f"{mode}/{choice}"], index, mask)
    for name, (said,), mask in volumes.distinct():
        keep(name, said, said, mask)
    return rows


def _without_mask(prompt: Prompt, item: str) -> Prompt:
    if prompt.mask is not None:
        raise InputError(item, "a mask is no prompt in 2D.", "Give points or a box, or evaluate in 3D.")
    return prompt


def _distinct_when_given(designs: Sequence[Design]) -> tuple[Design, ...]:
    """Return one design for each direction and mask choice: given prompts leave nothing else to differ."""
    first: dict[tuple[str, str], Design] = {}
    for design in designs:
        first.setdefault((design.direction, design.mask_choice), design)
    return tuple(first.values())


def evaluate_3d(
    model: Model,
    case: Case,
    designs: Sequence[Design],
    *,
    seed: int,
    options: PropagationOptions = PropagationOptions(),
    volume_metrics: str = "none",
    objects: Sequence[str] = (),
    features: SliceFeatures | None = None,
    prompt_source: str | PromptSource = "truth",
    keep: Keep | None = None,
) -> list[dict]:
    """Propagate prompts through the volume under every design and score the masks.

    Parameters
    ----------
    model : Model
        Of the family "sam2".
    case : Case
        With at least two slices.
    designs : sequence of Design
    seed, objects
        As for `evaluate_2d`.
    options : PropagationOptions
    volume_metrics : {"none", "overlap", "all"}
        Also propagate to the ends of the volume and score it as a whole, so that what is predicted
        beyond the object counts; "all" adds surface distances, which take about a second each.
    features : SliceFeatures, optional
        As for `evaluate_2d`.
    prompt_source : str or PromptSource
        As for `evaluate_2d`. Prompts of a file have the prompt and the frame choice "given"; of the
        designs then only direction and mask choice count.
    keep : callable (object, design, said, mask), optional
        Given the predicted mask, bool (z, y, x), of every object and design by its name; `said` is what the
        rows say of the design. Propagation then goes to the ends of the volume, as for `volume_metrics`.

    Returns
    -------
    list of dict
        Rows of `table.COLUMNS`: metric "iou" for every object, design and slice that holds the
        object, prompted slices included, as in the study; whole-volume metrics without a slice.
        `neighbour_iou` says how alike the object's truth is on a slice and on its neighbour towards
        the nearest prompted slice; missing on prompted slices. Where every slice is prompted (`options`),
        distances are still those from the slices that the design names, so that rows can be compared; what
        lies beyond the object is then not predicted.
    """
    require_known("volume_metrics", volume_metrics, VOLUME_METRICS, what="choice of volume metrics")
    source = parse_source(prompt_source)
    truth = object_masks(case, objects)
    facts = {name: slice_facts(case, name) for name in truth}
    whole = volume_metrics != "none" or keep is not None
    if whole:
        options = replace(options, until="volume_end")
    common = case_facts(case, model, "3d", options.protocol) | {
        "mask_scope": options.mask_scope,
        "frames": options.frames,
        "memory": options.window.name,
        "prompt_source": source.name,
    }
    given = source.given(case) if source.kind == "file" else {}
    slices_of: dict[str, tuple[int, ...]] | None = None
    if given:
        truth = {name: mask for name, mask in truth.items() if any(of == name for of, _ in given)}
        slices_of = {name: tuple(sorted(index for of, index in given if of == name)) for name in truth}
        designs = _distinct_when_given(designs)
    frames = {design.frame_choice for design in designs}
    chosen = {
        (name, frame): slices_of[name]
        if given
        else prompted_slices(mask.sum((1, 2)), frame, options.protocol)
        for name, mask in truth.items()
        for frame in frames
    }

    def prompt_of(name: str, index: int, kind: str) -> Prompt:
        if given:
            return given[name, index]
        mask, parts = truth[name][index], prompt_seed(seed, case, name, index)
        return source.displaced(prompt_3d(mask, kind, parts), mask, (*parts, kind, 0))

    likeness = {name: metrics.adjacent_iou(mask) for name, mask in truth.items()}

    def place_facts(name: str, index: int, design: Design) -> dict:
        distance = min((index - p for p in chosen[name, design.frame_choice]), key=abs)
        # element z of the likeness is that of slices z and z + 1
        alike = likeness[name][index - (distance > 0)] if distance else None
        millimetres = distance * case.image.spacing_mm[0]
        return {"distance_slices": distance, "distance_mm": millimetres, "neighbour_iou": alike}

    def design_facts(name: str, design: Design) -> dict:
        everywhere = options.window.remembered == "nothing" and not given
        slices = facts[name] if everywhere else chosen[name, design.frame_choice]
        prompted = ";".join(map(str, slices))
        factors = asdict(design) | ({"prompt": GIVEN, "frame_choice": GIVEN} if given else {})
        return common | factors | {"object": name, "prompted_slices": prompted}

    rows, volumes = [], PackedVolumes(case.labels.shape)
    for found in sweep(
        model, case.slices_uint8(), truth, designs, prompt_of, options, features=features, given=slices_of
    ):
        name, index = found.object_name, found.slice_index
        require_numbers(found.logits, model, case, index)
        if whole:
            volumes.add(name, found.designs, index, found.mask)
        if index not in facts[name]:
            continue
        mask = found.mask
        scored = {"metric": "iou", "value": iou(truth[name][index], mask), "score": found.score}
        scored["predicted_px"] = int(mask.sum())
        for design in found.designs:
            where = facts[name][index] | place_facts(name, index, design)
            rows.append(design_facts(name, design) | where | scored)
    for name, alike, mask in volumes.distinct():
        if keep is not None:
            for design in alike:
                said = design_facts(name, design)
                keep(name, design.name, "/".join(said[factor] for factor in DESIGN_FACTORS), mask)
        if volume_metrics == "none":
            continue
        size = {"truth_px": int(truth[name].sum())}
        spacing = case.image.spacing_mm
        measured = [(metrics.volume_overlap(truth[name], mask, spacing), None)]
        if volume_metrics == "all":
            surfaces = metrics.surface_distances(truth[name], mask, spacing)
            measured.append((surfaces, metrics.surface_backend()))
        for values, backend in measured:
            for metric, value in values.items():
                scored = {"metric": metric, "value": value, "backend": backend}
                rows.extend(design_facts(name, design) | size | scored for design in alike)
    return rows
