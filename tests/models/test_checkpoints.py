"""Loading weights: what is refused, and with which words."""

import pickle
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from medsam_nb.errors import CheckpointError
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.manifest.rows import Checkpoint
from medsam_nb.models.checkpoints import (
    choose_device,
    choose_dtype,
    file_sha256,
    load_model,
    read_weights,
    verified_sha256,
    weights_path,
)
from medsam_nb.models.features import SliceFeatures

ROOT = Path(__file__).parents[2]
ROWS = list(load_manifest(ROOT / "data_manifest.yaml").checkpoints)


@pytest.fixture(scope="module")
def manifest():
    return load_manifest(ROOT / "data_manifest.yaml")


@pytest.mark.parametrize("name", ["miniature_sam2", "miniature_sam"])
def test_the_shipped_weights_load_and_are_those_of_the_manifest(manifest, name):
    row = manifest.checkpoint(name)
    model = load_model(row, ROOT / "weights", device="cpu")
    assert model.checkpoint_sha256 == row.sha256 == file_sha256(weights_path(row, ROOT))
    assert model.image_size == row.image_size == 256
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert weights_path(row, ROOT).stat().st_size < 10e6


def test_a_missing_checkpoint_says_how_to_get_it(manifest, tmp_path):
    with pytest.raises(CheckpointError, match="sam2_hiera_large.pt.*medsam-nb fetch sam2_hiera_large"):
        load_model(manifest.checkpoint("sam2_hiera_large"), tmp_path, device="cpu")


def test_another_hash_is_refused_before_reading(manifest, tmp_path):
    (tmp_path / "sam2.1_hiera_tiny.pt").write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="SHA-256.*the manifest says 7402e0d8"):
        load_model(manifest.checkpoint("sam2.1_hiera_tiny"), tmp_path, device="cpu")
    assert verified_sha256(tmp_path / "sam2.1_hiera_tiny.pt", None).startswith("f41f")


class Payload:
    """An object whose unpickling would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_payload_is_not_run(tmp_path):
    mark = tmp_path / "it_ran"
    for number, save in enumerate((torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing)))):
        path = tmp_path / f"payload_{number}.pt"
        save({"model": Payload(mark)}, path)
        with pytest.raises(CheckpointError, match=f"{path.name}.*foreign code"):
            read_weights(path)
    assert not mark.exists()


def test_a_truncated_file_is_damaged(manifest, tmp_path):
    whole = weights_path(manifest.checkpoint("miniature_sam2"), ROOT).read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cut.pt.*damaged"):
        read_weights(tmp_path / "cut.pt")


def test_weights_of_another_network_are_refused(manifest):
    row = manifest.checkpoint("miniature_sam2").model_copy(update={"family": "sam"})
    with pytest.raises(CheckpointError, match="do not fit sam miniature.*family"):
        load_model(row, ROOT, device="cpu")


@cache
def facts_of_network(family: str, config: str, image_size: int) -> dict[str, object]:
    """Return what a network that is built for a row says of its own input size; rows that agree share it."""
    row = Checkpoint(
        name="built", family=family, config=config, file="built.pt", url="https://example.org/built.pt",
        image_size=image_size, licence="", citation="",
    )  # fmt: skip
    model = load_model(row, ROOT, device="cpu", untrained_seed=0)
    network, facts = model.network, {"model": model.image_size}
    if family == "sam2":
        facts["network"] = network.image_size
        facts["prompts"] = network.sam_prompt_encoder.input_image_size[0]
        for number, layer in enumerate(network.memory_attention.layers):
            for name in ("self_attn", "cross_attn_image"):  # one frequency for every cell of their grid
                cells = getattr(layer, name).freqs_cis.shape[0]
                facts[f"memory attention, {name} {number}"] = cells**0.5 * 16
    else:
        facts["network"] = network.image_encoder.img_size
        facts["prompts"] = network.prompt_encoder.input_image_size[0]
        facts["positions"] = network.image_encoder.pos_embed.shape[1] * 16
    return facts


@pytest.mark.parametrize("name", ROWS)
def test_the_input_size_of_every_row_is_obeyed(manifest, name):
    row = manifest.checkpoint(name)
    facts = facts_of_network(row.family, row.config, row.image_size)
    assert set(facts.values()) == {row.image_size}, facts
    if name.startswith("medsam2"):
        assert row.image_size == 512


def test_a_row_of_sam_with_another_input_size_is_refused_by_name(manifest):
    for name in ("sam_vit_b", "medsam", "medicosam"):
        row = manifest.checkpoint(name).model_copy(update={"image_size": 512})
        with pytest.raises(
            CheckpointError, match=f"{name}: image_size is 512.*vit_b.*1024.*image_size: 1024"
        ):
            load_model(row, ROOT, device="cpu", untrained_seed=0)


def test_a_network_at_another_size_computes_and_has_no_weight_of_its_own(manifest):
    """What MedSAM2's rows rely on: the weights of 1024 pixels fit at 512, and a slice is encoded at 512."""
    large, small = (
        load_model(manifest.checkpoint(name), ROOT, device="cpu", untrained_seed=0)
        for name in ("sam2.1_hiera_tiny", "medsam2_latest")
    )
    small.network.load_state_dict(large.network.state_dict())
    features = SliceFeatures(small, np.zeros((1, 40, 30), np.uint8))[0]
    assert [tuple(level.shape[-2:]) for level in features] == [(128, 128), (64, 64), (32, 32)]


def test_untrained_weights_are_called_so_and_follow_their_seed(manifest):
    row = manifest.checkpoint("miniature_sam")
    one, same, other = (load_model(row, ROOT, device="cpu", untrained_seed=seed) for seed in (1, 1, 2))
    assert one.name == "untrained miniature_sam" and one.checkpoint_sha256 == "untrained-seed-1"
    first = [next(model.network.mask_decoder.parameters()) for model in (one, same, other)]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])


def test_arithmetic_follows_the_device_unless_wished():
    assert choose_device("cpu").type == "cpu"
    assert choose_dtype(torch.device("cuda")) == torch.bfloat16
    assert choose_dtype(torch.device("cpu")) == torch.float32
    assert choose_dtype(torch.device("cpu"), "bfloat16") == torch.bfloat16
    with pytest.raises(CheckpointError, match="float16.*bfloat16"):
        choose_dtype(torch.device("cpu"), "float16")
