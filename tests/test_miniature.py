"""The miniature networks: sizes, initialisation, official predictors, and what shipped weights learned."""

import numpy as np
import pytest
import torch

from medsam_nb import miniature, model_report, phantom
from medsam_nb.models import EMBEDDED_WEIGHTS, read_weights


def shipped(name):
    model = miniature.build_sam2() if name == "miniature_sam2" else miniature.build_sam()
    model.load_state_dict(read_weights(EMBEDDED_WEIGHTS / f"{name}.pt"))
    return model.eval()


@pytest.mark.parametrize("build", [miniature.build_sam2, miniature.build_sam])
def test_size(build):
    count = sum(p.numel() for p in build().parameters())
    assert 2e6 < count < 6e6


def test_one_state_fits_every_input_size():
    state = miniature.build_sam2(256).state_dict()
    miniature.build_sam2(128).load_state_dict(state)
    with pytest.raises(ValueError, match="multiple of 64"):
        miniature.build_sam2(200)
    with pytest.raises(ValueError, match="multiple of 16"):
        miniature.build_sam(200)


def test_the_flags_are_those_of_the_published_configuration():
    model = miniature.build_sam2()
    decoder = model.sam_mask_decoder
    assert decoder.dynamic_multimask_via_stability
    assert (decoder.dynamic_multimask_stability_delta, decoder.dynamic_multimask_stability_thresh) == (
        0.05,
        0.98,
    )
    assert (model.multimask_min_pt_num, model.multimask_max_pt_num, model.num_maskmem) == (0, 1, 7)
    assert model.fill_hole_area == 0 and not model.training


@pytest.mark.parametrize("build", [miniature.build_sam2, miniature.build_sam])
def test_keys_equal_queries_after_initialisation(build):
    model = build()
    miniature.initialise_prompting(model)
    _, decoder = miniature.prompt_parts(model)
    attention = decoder.transformer.layers[0].cross_attn_token_to_image
    assert torch.equal(attention.q_proj.weight, attention.k_proj.weight)
    assert not attention.q_proj.bias.any()


def test_saved_weights_are_plain_half_precision_tensors(tmp_path):
    model = miniature.build_sam2()
    digest = miniature.save_state(model, tmp_path / "model.pt")
    assert len(digest) == 64
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(v.dtype == torch.float16 for v in state.values() if v.is_floating_point())
    back = read_weights(tmp_path / "model.pt")
    assert max(float((back[k] - v).abs().max()) for k, v in model.state_dict().items()) < 2e-3


@pytest.mark.parametrize(("name", "least"), [("miniature_sam2", 0.8), ("miniature_sam", 0.4)])
def test_shipped_weights_segment_simulated_organs_from_a_box(name, least):
    predictor = model_report.image_predictor(shipped(name))
    found = []
    for modality in ("mri", "ct", "pet"):
        case = phantom.simulate_case(modality, 77, shape=(24, 256, 256))
        mask = case.labels == case.objects["organ"]
        z = int(mask.sum(axis=(1, 2)).argmax())
        predictor.set_image(model_report.to_rgb(model_report.stretched(case.image, modality.upper())[z]))
        found += [row["box_first"] for row in model_report.score_slice(predictor, [mask[z]])]
    assert np.mean(found) > least, found


def test_the_shipped_tracker_follows_an_organ_and_knows_both_directions():
    model = shipped("miniature_sam2")
    case = phantom.simulate_case("ct", 5, shape=(12, 256, 256))
    truth = case.labels == case.objects["organ"]
    image = model_report.stretched(case.image, "CT")
    row = model_report.score_volume(model, image, truth)
    assert row["prompted"] > 0.6 and row["propagated"] > 0.4, row
