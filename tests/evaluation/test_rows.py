"""Rows against independent computations with the official predictors, on the shipped miniature models."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.volumes import disc_case
from sam2.sam2_image_predictor import SAM2ImagePredictor
from segment_anything import SamPredictor

from medsam_nb.errors import InputError, StudyError
from medsam_nb.evaluation.mask_choices import chosen_masks
from medsam_nb.evaluation.rows import evaluate_2d, evaluate_3d
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.models.checkpoints import load_model
from medsam_nb.protocol.designs import MASK_CHOICES_2D, Design
from medsam_nb.protocol.intensity import Intensity
from medsam_nb.protocol.metrics import iou
from medsam_nb.protocol.options import MemoryWindow, PropagationOptions
from medsam_nb.protocol.prompt_sources import GIVEN
from medsam_nb.protocol.prompts import PROMPTS_2D, central_point, largest_components, prompts_2d, tight_box
from medsam_nb.protocol.prompts_file import lines_of, write_prompts
from medsam_nb.protocol.table import as_table
from medsam_nb.protocol.volume import Case, Volume

ROOT = Path(__file__).parents[2]
SEED = 5


@pytest.fixture(scope="module")
def case():
    return disc_case()


@pytest.fixture(scope="module")
def coloured(case):
    """The same slices in colour: another picture in every channel."""
    grey = case.slices_uint8()
    colours = np.stack([grey, grey[:, ::-1], 255 - grey], axis=-1)
    return dataclasses.replace(case, colours=colours)


@pytest.fixture(scope="module")
def parts():
    """An object of three components on each of five slices, hardly to be seen: candidates differ."""
    draw, rows, columns = np.random.default_rng(5), *np.ogrid[:64, :64]
    labels = np.zeros((5, 64, 64), np.uint8)
    for index in range(5):
        for row, column in ((15, 14), (20, 40), (44, 26)):
            radius = draw.integers(4, 11)
            labels[index][(rows - row) ** 2 + 2 * (columns - column) ** 2 <= radius**2] = 1
    image = 90 + 30 * draw.normal(size=labels.shape) + 60 * labels * draw.random(labels.shape)
    image = np.clip(image, 0, 255)
    volume = Volume.from_spacing(image.astype(np.float32), (4.0, 1.0, 1.0))
    return Case("made_up", "parts", "simulated", volume, labels, {"parts": (1,)}, Intensity("window", 0, 255))


@pytest.fixture(scope="module")
def models():
    rows = load_manifest(ROOT / "data_manifest.yaml")
    return {
        name: load_model(rows.checkpoint(name), ROOT / "weights", device="cpu")
        for name in ("miniature_sam2", "miniature_sam")
    }


def official_predictor(model):
    if model.family == "sam":
        return SamPredictor(model.network)
    predictor = SAM2ImagePredictor(model.network)
    size = model.image_size
    predictor._bb_feat_sizes = [(size // 4, size // 4), (size // 8, size // 8), (size // 16, size // 16)]
    return predictor


def recomputed(predictor, case, name, index, mode, choice):
    """The IoU of one row, by the predictor's public methods and the protocol's words."""
    shown = case.slices_uint8()[index]
    predictor.set_image(shown if shown.ndim == 3 else np.stack([shown] * 3, axis=-1))
    truth = case.mask(name)[index]
    parts = largest_components(truth)
    seed = (SEED, case.data_set, case.case_id, name, index)
    points = [central_point(part, *seed, rank) for rank, part in enumerate(parts)]
    calls = {
        "one_point": [{"point_coords": np.array(points[:1]), "point_labels": np.ones(1)}],
        "point_per_component": [{"point_coords": np.array(points), "point_labels": np.ones(len(points))}],
        "one_box": [{"box": np.array(tight_box(parts[0]))}],
        "box_per_component": [{"box": np.array(tight_box(part))} for part in parts],
    }[mode]
    answers = [predictor.predict(**call, multimask_output=True)[:2] for call in calls]
    channels = [np.any([masks[number] > 0 for masks, _ in answers], axis=0) for number in range(3)]
    if choice == "oracle_channel":  # the rule of SAM's published tables
        return max(iou(truth, channel) for channel in channels)
    unions = [np.zeros_like(truth)]
    for masks, _ in answers:
        unions = [union | (mask > 0) for union in unions for mask in masks]
    assert len(unions) == 3 ** len(calls)
    if choice == "oracle_mask":
        return max(iou(truth, union) for union in unions)
    confident = np.any([masks[np.argmax(scores)] > 0 for masks, scores in answers], axis=0)
    return iou(truth, {"first_mask": channels[0], "most_confident_mask": confident}[choice])


@pytest.mark.parametrize("name", ["miniature_sam2", "miniature_sam"])
@pytest.mark.parametrize("shown", ["case", "coloured", "parts"])
def test_2d_rows_equal_the_official_predictor(models, name, shown, request):
    case = request.getfixturevalue(shown)
    rows = evaluate_2d(models[name], case, PROMPTS_2D, seed=SEED)
    assert len(rows) == 5 * len(PROMPTS_2D) * 4
    predictor = official_predictor(models[name])
    with torch.inference_mode():
        for row in rows:
            expected = recomputed(
                predictor, case, row["object"], row["slice_index"], row["prompt"], row["mask_choice"]
            )
            assert row["value"] == expected, row


def test_2d_rows_fit_the_table_and_count_only_slices_with_the_object(models, case):
    table = as_table(evaluate_2d(models["miniature_sam2"], case, ["one_box"], seed=SEED))
    assert set(table[table.object == "bar"].slice_index) == {2, 3}
    assert set(table[table.object == "discs"].n_components) == {2}
    assert set(table.patient_id) == {"p"}


def by_choice(rows):
    return as_table(rows).pivot_table("value", ["prompt", "object", "slice_index"], "mask_choice")


@pytest.mark.parametrize("name", ["miniature_sam2", "miniature_sam"])
def test_the_oracle_is_an_upper_bound_of_every_choice(models, case, parts, name):
    wide = pd.concat(
        [by_choice(evaluate_2d(models[name], one, PROMPTS_2D, seed=SEED)) for one in (case, parts)]
    )
    for choice in MASK_CHOICES_2D:
        assert (wide["oracle_mask"] >= wide[choice]).all(), choice
    single = wide[wide.index.get_level_values("prompt") != "box_per_component"]
    pd.testing.assert_series_equal(single["oracle_mask"], single["oracle_channel"], check_names=False)
    boxes = wide.loc["box_per_component"]
    assert (boxes["oracle_channel"] >= boxes["first_mask"]).all()
    assert (boxes["oracle_mask"] > boxes["oracle_channel"]).any()  # else this tests nothing


def test_the_best_union_is_not_that_of_the_best_parts():
    """The case for which choosing per call is no bound: a part's best candidate spills where another is."""
    truth = np.array([[1, 1, 1, 1, 0, 0]], bool)
    first = np.array([[[1, 1, 0, 0, 0, 0]], [[1, 1, 1, 0, 1, 0]], [[0, 0, 0, 0, 0, 0]]], bool)
    second = np.array([[[0, 0, 1, 1, 0, 0]], [[0, 0, 1, 1, 1, 1]], [[0, 0, 0, 1, 0, 0]]], bool)
    scores = np.array([0.2, 0.9, 0.1])
    found = chosen_masks(truth, [(first, scores), (second, scores)])
    assert {choice: iou(truth, mask) for choice, (mask, _) in found.items()} == {
        "first_mask": 1.0,
        "most_confident_mask": 4 / 6,
        "oracle_mask": 1.0,
        "oracle_channel": 1.0,
    }
    per_part = [masks[np.argmax([iou(truth, mask) for mask in masks])] for masks in (first, second)]
    assert iou(truth, np.logical_or(*per_part)) < 1.0
    assert found["oracle_mask"][1] == pytest.approx(0.2) and found["most_confident_mask"][1] == 0.9


def test_3d_rows_of_a_coloured_volume_see_its_colours(models, case, coloured):
    design = [Design("centre_slice", "one_box", "bidirectional", "most_confident_mask")]
    rows = [evaluate_3d(models["miniature_sam2"], one, design, seed=SEED) for one in (case, coloured)]
    assert len(rows[0]) == len(rows[1]) and rows[0] != rows[1]
    grey = dataclasses.replace(case, colours=np.repeat(case.slices_uint8()[..., None], 3, axis=-1))
    assert evaluate_3d(models["miniature_sam2"], grey, design, seed=SEED) == rows[0]


def test_3d_rows_have_distances_and_whole_volume_scores(models, case):
    designs = [
        Design(frame, "one_box", direction, "first_mask")
        for frame in ("first_slice", "three_slices")
        for direction in ("front_to_end", "bidirectional")
    ]
    rows = evaluate_3d(models["miniature_sam2"], case, designs, seed=SEED, volume_metrics="all")
    table = as_table(rows)
    slices = table[table.metric == "iou"]
    assert len(slices) == (3 + 2) * len(designs)
    first = slices[(slices.frame_choice == "first_slice") & (slices.object == "discs")]
    assert set(first.prompted_slices) == {"1"}
    assert sorted(set(zip(first.distance_slices, first.distance_mm, strict=True))) == [(0, 0), (1, 4), (2, 8)]
    alike = {0: None, 1: iou(*case.mask("discs")[1:3]), 2: iou(*case.mask("discs")[2:4])}
    for row in first.itertuples():  # the neighbour towards the prompt, on slice 1, lies below
        assert (
            pd.isna(row.neighbour_iou)
            if not row.distance_slices
            else row.neighbour_iou == alike[row.distance_slices]
        )
    assert slices.predicted_px.notna().all()
    # |A and B| = IoU (|A| + |B|) / (1 + IoU) is a whole number of pixels
    sizes = slices.value * (slices.truth_px + slices.predicted_px) / (1 + slices.value)
    assert (sizes - sizes.round()).abs().max() < 1e-6
    whole = table[table.metric == "volume_iou"]
    assert len(whole) == 2 * len(designs) and whole.slice_index.isna().all()
    assert set(table[table.metric == "volume_dice"].truth_px) == {
        int(case.mask(n).sum()) for n in case.objects
    }
    assert table[table.metric == "hd95_mm"].backend.notna().all()


def test_3d_without_whole_volume_scores_gives_the_same_slices(models, case):
    design = [Design("centre_slice", "one_point", "bidirectional", "most_confident_mask")]
    short = evaluate_3d(models["miniature_sam2"], case, design, seed=SEED)
    long = evaluate_3d(models["miniature_sam2"], case, design, seed=SEED, volume_metrics="overlap")
    assert short == [row for row in long if row["metric"] == "iou"]
    with pytest.raises(StudyError, match="surfaces.*overlap"):
        evaluate_3d(models["miniature_sam2"], case, design, seed=SEED, volume_metrics="surfaces")


def test_rows_of_the_bounds_lie_beside_those_of_propagation(models, case):
    """The same slices at the same distances; where every slice is prompted, each row says so."""
    design = [Design("first_slice", "one_box", "front_to_end", "most_confident_mask")]
    tables = {}
    for content in ("predictions", "truth", "nothing"):
        options = PropagationOptions(window=MemoryWindow(remembered=content))
        given = {"seed": SEED, "objects": ["discs"], "options": options, "volume_metrics": "overlap"}
        tables[content] = as_table(evaluate_3d(models["miniature_sam2"], case, design, **given))
    slices = {content: table[table["metric"] == "iou"] for content, table in tables.items()}
    same = ["slice_index", "distance_slices", "truth_px", "neighbour_iou"]
    for content, rows in slices.items():
        assert rows[same].reset_index(drop=True).equals(slices["predictions"][same].reset_index(drop=True))
        assert set(rows["memory"]) == {MemoryWindow(remembered=content).name}
    assert set(slices["truth"]["prompted_slices"]) == {"1"}
    assert set(slices["nothing"]["prompted_slices"]) == {"1;2;3"}
    alone = evaluate_3d(
        models["miniature_sam2"], case, [dataclasses.replace(design[0], frame_choice="centre_slice")],
        seed=SEED, objects=["discs"],
    )  # fmt: skip
    (prompted,) = [row["value"] for row in alone if row["distance_slices"] == 0]
    assert slices["nothing"].set_index("slice_index")["value"][2] == prompted
    whole = tables["nothing"][tables["nothing"]["metric"] == "volume_iou"]
    assert whole["predicted_px"].isna().all() and len(whole) == 1


def test_a_choice_of_objects_that_the_case_lacks_is_named(models, case):
    rows = evaluate_2d(models["miniature_sam2"], case, ["one_box"], seed=SEED, objects=["bar", "liver"])
    assert {row["object"] for row in rows} == {"bar"}
    with pytest.raises(InputError, match="none of the chosen objects liver.*discs, bar"):
        evaluate_2d(models["miniature_sam2"], case, ["one_box"], seed=SEED, objects=["liver"])


POINT_AND_BOX = [
    Design(frame, prompt, "bidirectional", choice)
    for frame in ("centre_slice", "largest_slice")
    for prompt in ("one_point", "one_box")
    for choice in ("first_mask", "most_confident_mask")
]


def without(rows, *columns):
    return [{key: value for key, value in row.items() if key not in columns} for row in rows]


def test_jitter_of_share_zero_is_the_truth_and_another_changes_values(models, case):
    model = models["miniature_sam2"]
    for rows_of in (
        lambda source: evaluate_2d(model, case, PROMPTS_2D, seed=SEED, prompt_source=source),
        lambda source: evaluate_3d(model, case, POINT_AND_BOX, seed=SEED, prompt_source=source),
    ):
        truth, still, moved, again = map(
            rows_of, ("truth", "jittered:0:1", "jittered:0.2:1", "jittered:0.2:1")
        )
        assert without(truth, "prompt_source") == without(still, "prompt_source")
        assert moved == again and without(moved, "prompt_source") != without(truth, "prompt_source")
        assert {row["prompt_source"] for row in truth + moved} == {"truth", "jittered:0.2:1"}
    masks = [Design("centre_slice", "mask", "bidirectional", "first_mask")]
    with pytest.raises(InputError, match="a mask cannot be jittered"):
        evaluate_3d(model, case, masks, seed=SEED, prompt_source="jittered:0.1:0")


def test_prompts_written_to_a_file_and_read_from_it_give_the_values_of_the_truth(models, case, tmp_path):
    """What hand, simulation and replay share: the file of the truth's prompts is the truth."""
    model, path, lines = models["miniature_sam2"], tmp_path / "prompts.jsonl", []
    for name in case.objects:
        for index in np.flatnonzero(case.mask(name).any((1, 2))):
            (prompt,) = prompts_2d(case.mask(name)[index], "one_box", (1,))
            lines += lines_of(case, name, index, prompt, order=len(lines))
    write_prompts(path, lines)
    drawn = evaluate_2d(model, case, ["one_box"], seed=SEED)
    given = evaluate_2d(model, case, ["one_point", "one_box"], seed=SEED, prompt_source=str(path))
    assert without(given, "prompt_source", "prompt") == without(drawn, "prompt_source", "prompt")
    assert {row["prompt"] for row in given} == {GIVEN}
    discs = int(case.mask("discs").sum((1, 2)).argmax())
    write_prompts(path, [line for line in lines if (line.object, line.slice_index) == ("discs", discs)])
    drawn = evaluate_3d(
        model,
        case,
        [Design("largest_slice", "one_box", "bidirectional", "first_mask")],
        seed=SEED,
        objects=["discs"],
    )
    designs = [design for design in POINT_AND_BOX if design.mask_choice == "first_mask"]
    given = evaluate_3d(model, case, designs, seed=SEED, prompt_source=path)
    changed = "prompt_source", "prompt", "frame_choice"
    assert without(given, *changed) == without(drawn, *changed)
    assert {row["frame_choice"] for row in given} == {GIVEN} and len(given) == 3
