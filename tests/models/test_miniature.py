"""The miniature networks: sizes, initialisation, official predictors, and what shipped weights learned."""

import numpy as np
import pandas as pd
import pytest
import torch

from medsam_nb.data.simulated import anatomy
from medsam_nb.errors import InputError
from medsam_nb.finetuning import steps
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.models import miniature
from medsam_nb.models.checkpoints import load_model, read_weights
from medsam_nb.protocol.intensity import Intensity
from medsam_nb.protocol.volume import Case, Volume
from medsam_nb.provenance import project_root
from training import initialisation, report_cases
from training import report as model_report


def shipped(name):
    row = load_manifest(project_root() / "data_manifest.yaml").checkpoint(name)
    return load_model(row, project_root() / "weights", device="cpu")


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


def test_a_deepened_encoder_predicts_the_same_at_first():
    shallow = miniature.build_sam2(128, (1, 2, 4, 1))
    deep = miniature.build_sam2(128)
    state = initialisation.deepened(shallow.state_dict())
    deep.load_state_dict(state)
    image = torch.rand(1, 3, 128, 128)
    with torch.inference_mode():
        before, after = (model.forward_image(image)["backbone_fpn"] for model in (shallow, deep))
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert sum(map(torch.numel, state.values())) > sum(map(torch.numel, shallow.state_dict().values()))
    again = initialisation.deepened(state)
    assert all(torch.equal(again[name], value) for name, value in state.items())
    for other in (miniature.build_sam2(128, (3, 4, 6, 1)), miniature.build_sam(128)):
        with pytest.raises(ValueError, match="encoder blocks are not of a miniature SAM 2"):
            initialisation.deepened(other.state_dict())


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
    initialisation.initialise_prompting(model)
    _, decoder = steps.prompt_parts(model)
    attention = decoder.transformer.layers[0].cross_attn_token_to_image
    assert torch.equal(attention.q_proj.weight, attention.k_proj.weight)
    assert not attention.q_proj.bias.any()


def test_saved_weights_are_plain_half_precision_tensors(tmp_path):
    model = miniature.build_sam2()
    digest = initialisation.save_state(model, tmp_path / "model.pt")
    assert len(digest) == 64
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(v.dtype == torch.float16 for v in state.values() if v.is_floating_point())
    back = read_weights(tmp_path / "model.pt")
    assert max(float((back[k] - v).abs().max()) for k, v in model.state_dict().items()) < 2e-3


def simulated_organ(modality, seed, slices):
    made = anatomy.simulate_case(modality, seed, shape=(slices, 256, 256))
    value = {"organ": (made.objects["organ"],)}
    policy = Intensity("window", -160, 240) if modality == "ct" else Intensity("percentile", 0.5, 99.5)
    volume = Volume(np.asarray(made.image, np.float32), np.eye(4))
    return Case(f"simulated_{modality}", str(seed), modality, volume, made.labels, value, policy)


@pytest.mark.parametrize(("name", "least"), [("miniature_sam2", 0.8), ("miniature_sam", 0.4)])
def test_shipped_weights_segment_simulated_organs_from_a_box(name, least):
    cases = [simulated_organ(modality, 77, 24) for modality in ("mri", "ct", "pet")]
    largest = [list(report_cases.real_slices([case]))[0] for case in cases]
    table = model_report.scores_2d(shipped(name), largest, "organs")
    first = table[(table.prompt == "one_box") & (table.mask_choice == "first_mask")]
    assert set(first.data_set) == {"simulated_mri", "simulated_ct", "simulated_pet"}
    assert first.value.mean() > least, first.groupby("data_set").value.mean()


def test_the_shipped_tracker_follows_an_organ():
    (case,) = list(report_cases.real_volumes([simulated_organ("ct", 5, 12)]))
    line = model_report.scores_3d(shipped("miniature_sam2"), [case], "organ").iloc[0]
    assert line.prompted > 0.6 and line.propagated > 0.4 and line.front_to_end > 0.3, line


def test_the_report_measures_what_was_asked_for(tmp_path, monkeypatch, capsys):
    root = tmp_path / "workbook"
    root.mkdir()
    manifest = project_root() / "data_manifest.yaml"
    (root / "data_manifest.yaml").write_bytes(manifest.read_bytes())
    monkeypatch.setattr(model_report, "project_root", lambda: root)
    monkeypatch.setattr(report_cases, "VOLUMES", 2)
    found = model_report.report(tmp_path / "out", images=1, objects=1, only="miniature_sam2")
    numbers = found["models"]["miniature_sam2"]
    table = pd.read_csv(tmp_path / "out" / "miniature_sam2_simulated_2d.csv")
    box = table[(table.prompt == "one_box") & (table.mask_choice == "first_mask")]
    assert numbers["simulated_2d masks"] == len(box)
    assert numbers["simulated_2d box first"] == pytest.approx(box.value.mean(), abs=1e-4)
    assert {"mni152 brain box first", "simulated_3d propagated"} <= set(numbers)
    assert "samples.yaml" in capsys.readouterr().out  # says how the real cases would be had
    assert (tmp_path / "out" / "miniature_sam2_overlays_2d.png").is_file()
    with pytest.raises(InputError, match="--only"):
        model_report.report(tmp_path / "out", weights=tmp_path / "other.pt")
