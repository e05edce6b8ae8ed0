"""One model on one case: rows of the tidy table, in 2D (every slice prompted) and 3D (propagated)."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pandas as pd

from medsam_nb.errors import InputError, require_known
from medsam_nb.evaluation import propagation
from medsam_nb.evaluation.facts import case_facts, object_masks, require_numbers, slice_facts
from medsam_nb.evaluation.mask_choices import chosen_masks
from medsam_nb.evaluation.parts import Parts, all_rows, by_slices, propagated_together
from medsam_nb.evaluation.single_slices import candidates
from medsam_nb.evaluation.volumes import Volumes
from medsam_nb.models.checkpoints import Model
from medsam_nb.models.features import SliceFeatures
from medsam_nb.protocol import metrics
from medsam_nb.protocol.designs import DESIGN_FACTORS, Design, prompted_slices
from medsam_nb.protocol.metrics import iou
from medsam_nb.protocol.options import PropagationOptions
from medsam_nb.protocol.prompt_sources import GIVEN, PromptSource, parse_source
from medsam_nb.protocol.prompts import Prompt, prompt_3d, prompt_seed, prompts_2d
from medsam_nb.protocol.volume import Case

VOLUME_METRICS = ("none", "overlap", "all")
Keep = Callable[[str, str, str, np.ndarray], None]  # of an object: a name, what rows say, the mask (z, y, x)


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
    parts: Parts | None = None,
) -> list[dict] | pd.DataFrame:
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
    parts : Parts, optional
        Where the rows of a long case are kept, `SLICES_OF_A_PART` slices at a time, until it is whole; of no
        use with `keep`, which takes all slices.

    Returns
    -------
    list of dict, or DataFrame of a long case that is kept in parts
        Rows of `table.COLUMNS`, metric "iou": for every object, slice and prompt a row for each of
        `designs.MASK_CHOICES_2D`. Masks of several calls are united after the choice; the score is their
        mean.
    """
    truth, slices = object_masks(case, objects), case.slices_uint8()
    source = parse_source(prompt_source)
    given = source.given(case) if source.kind == "file" else None
    common = case_facts(case, model.name, "2d", protocol) | {"metric": "iou", "prompt_source": source.name}

    def asked(indices: Collection[int]) -> dict[tuple, tuple[int, Prompt]]:
        """Return the prompts on slices, by object, slice, prompt and number of the call."""
        if given is not None:
            return {
                (name, index, GIVEN, 0): (index, _without_mask(prompt, f"{source.path}, slice {index}"))
                for (name, index), prompt in given.items()
                if index in indices and name in truth and truth[name][index].any()
            }
        calls = {}
        for name, whole in truth.items():
            for index in (index for index in indices if whole[index].any()):
                for mode in prompts:
                    mask, parts_of = whole[index], prompt_seed(seed, case, name, index)
                    for number, prompt in enumerate(prompts_2d(mask, mode, parts_of)):
                        prompt = source.displaced(prompt, mask, (*parts_of, mode, number))
                        calls[name, index, mode, number] = index, prompt
        return calls

    def rows(indices: Collection[int]) -> list[dict]:
        facts = {name: slice_facts(mask, name, indices) for name, mask in truth.items()}
        found: dict[tuple, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
        for (name, index, mode, _), masks, scores in candidates(
            model, slices, asked(indices), features=features
        ):
            require_numbers(np.isfinite(scores).all(), model, case, index)
            found[name, index, mode].append((masks, scores))
        scored = []
        for (name, index, mode), answers in found.items():
            for choice, (mask, score) in chosen_masks(truth[name][index], answers).items():
                what = {"prompt": mode, "mask_choice": choice, "predicted_px": int(mask.sum())}
                value = {"value": iou(truth[name][index], mask), "score": score}
                scored.append(common | facts[name][index] | what | value)
                if keep is not None:
                    volumes.add(name, [f"{mode}/{choice}"], index, mask)
        return scored

    volumes = Volumes(case.labels.shape)
    done = all_rows(by_slices(truth, rows), parts if keep is None else None)
    for name, (said,), mask in volumes.distinct():
        keep(name, said, said, mask)
    return done


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
    parts: Parts | None = None,
) -> list[dict] | pd.DataFrame:
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
    parts : Parts, optional
        Where the rows of a long case are kept, object by object and frame choice by frame choice, until it
        is whole; see `propagated_together`.

    Returns
    -------
    list of dict, or DataFrame of a long case that is kept in parts
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
    facts = {name: slice_facts(mask, name) for name, mask in truth.items()}
    whole = volume_metrics != "none" or keep is not None
    if whole:
        options = replace(options, until="volume_end")
    common = case_facts(case, model.name, "3d", options.protocol) | {
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
        mask, parts_of = truth[name][index], prompt_seed(seed, case, name, index)
        return source.displaced(prompt_3d(mask, kind, parts_of), mask, (*parts_of, kind, 0))

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

    slices = case.slices_uint8()
    features = features or SliceFeatures(model, slices, frames=options.frames)

    def slice_rows(names: Sequence[str], some: Sequence[Design], volumes: Volumes) -> Iterator[dict]:
        tracked = {name: truth[name] for name in names}
        shared = {"features": features, "given": slices_of, "masks": whole}
        for found in propagation.sweep_counts(model, slices, tracked, some, prompt_of, options, **shared):
            name, index = found.object_name, found.slice_index
            require_numbers(found.counts.is_finite, model, case, index)
            if whole:
                volumes.add(name, found.designs, index, found.mask)
            if index not in facts[name]:
                continue
            scored = {"metric": "iou", "value": found.counts.iou, "score": found.score}
            scored["predicted_px"] = found.counts.predicted
            for design in found.designs:
                where = facts[name][index] | place_facts(name, index, design)
                yield design_facts(name, design) | where | scored

    def volume_rows(name: str, alike: Sequence[Design], mask: np.ndarray) -> Iterator[dict]:
        size = {"truth_px": int(truth[name].sum())}
        for metric, value, backend in measured(truth[name], mask, case.image.spacing_mm, volume_metrics):
            scored = {"metric": metric, "value": value, "backend": backend}
            yield from (design_facts(name, design) | size | scored for design in alike)

    def rows(names: Sequence[str], some: Sequence[Design]) -> list[dict]:
        volumes = Volumes(case.labels.shape)
        found = list(slice_rows(names, some, volumes))
        for name, alike, mask in volumes.distinct():
            for design in alike if keep is not None else ():
                said = design_facts(name, design)
                keep(name, design.name, "/".join(said[factor] for factor in DESIGN_FACTORS), mask)
            found += volume_rows(name, alike, mask)
        return found

    reach = {name: len(mask) if whole else len(facts[name]) for name, mask in truth.items()}
    pieces = [
        (f"{'; '.join(names)}: {'; '.join(design.name for design in some)}", partial(rows, names, some))
        for names, some in propagated_together(reach, designs)
    ]
    return all_rows(pieces, parts)


def measured(
    truth: np.ndarray, mask: np.ndarray, spacing_mm: tuple[float, float, float], which: str
) -> Iterator[tuple[str, float, str | None]]:
    """Yield name, value and backend of the metrics of a volume."""
    if which == "none":
        return
    yield from ((*pair, None) for pair in metrics.volume_overlap(truth, mask, spacing_mm).items())
    if which == "all":
        backend = metrics.surface_backend()
        yield from ((*pair, backend) for pair in metrics.surface_distances(truth, mask, spacing_mm).items())
