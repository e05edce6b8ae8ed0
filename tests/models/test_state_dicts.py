"""Hostile weights: each is refused by name before any case, none runs code, none becomes an IoU of 0."""

import io
import os
import pickle
import re
import tarfile
import time
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from medsam_nb.errors import CheckpointError
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.models import checkpoints
from medsam_nb.models.checkpoints import is_verified, load_model, usable_sha256, verified_sha256
from medsam_nb.models.state_dicts import read_weights
from medsam_nb.provenance import file_sha256, record_sha256

ROOT = Path(__file__).parents[2]
SHIPPED = checkpoints.EMBEDDED_WEIGHTS / "miniature_sam2.pt"


@pytest.fixture(scope="module")
def state():
    return read_weights(SHIPPED)


@pytest.fixture(scope="module")
def manifest():
    return load_manifest(ROOT / "data_manifest.yaml")


@pytest.fixture
def row(manifest):
    """Weights of one's own, that no hash vouches for."""
    changed = {"embedded": False, "sha256": None, "file": "own.pt", "url": "https://example.org/own.pt"}
    return manifest.checkpoint("miniature_sam2").model_copy(update=changed)


class Payload:
    """An object whose unpickling would leave a folder behind."""

    def __reduce__(self):
        return os.mkdir, ("it_ran",)


def saved(content, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def compressed() -> bytes:
    """A file of torch.save, with compressed zeros for weights."""
    before = zipfile.ZipFile(io.BytesIO(saved({"a": torch.zeros(1_000_000)})))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as after:
        for member in before.namelist():
            after.writestr(member, before.read(member))
    return buffer.getvalue()


def compiled() -> bytes:
    with warnings.catch_warnings(action="ignore"):
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), buffer)
    return buffer.getvalue()


def tarred(names) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name in names:
            file.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


FULL, HALF = torch.ones(4, 4), torch.ones(4, 4).half()
# What a file holds, and what is said of it.
FILES = {
    "empty": (b"", "is damaged"),
    "a word": (b"hello world", "is damaged"),
    "a web page": (b"<!doctype html><html>Log in</html>", "no file of weights"),
    "random bytes": (bytes(range(255, 0, -1)) * 9, "no file of weights|is damaged"),
    "the head of a zip": (b"PK\x03\x04", "is damaged"),
    "half an archive": (saved({"a": torch.ones(10_000)})[:20_000], "is damaged|no file of weights"),
    "a tar archive": (tarred(["storages", "tensors", "pickle"]), "is damaged|no file of weights"),
    "a compressed archive": (compressed(), "it would unpack to 4,00"),
    "a plain pickle": (pickle.dumps({"a": [1]}, 2), "is damaged"),
    "a payload": (saved({"model": Payload()}), "foreign code"),
    "a payload beside weights": (saved({"a": FULL, "b": Payload()}), "foreign code"),
    "a payload in the old format": (
        saved({"a": Payload()}, _use_new_zipfile_serialization=False),
        "foreign code",
    ),
    "a plain payload": (pickle.dumps(Payload()), "foreign code"),
    "a whole network": (saved(torch.nn.Linear(2, 2)), "foreign code"),
    "a compiled network": (compiled(), "it would unpack to|TorchScript"),
    "a tensor": (saved(FULL), "it holds a Tensor, no state dict"),
    "a list": (saved([FULL]), "it holds a list, no state dict"),
    "a number": (saved(3), "it holds a int, no state dict"),
    "nothing": (saved(None), "it holds a NoneType, no state dict"),
    "an empty dict": (saved({}), "an empty state dict"),
    "an empty model": (saved({"model": {}}), "an empty state dict"),
    "a model that is a tensor": (saved({"model": FULL}), "do not fit"),
    "a state_dict of a trainer": (saved({"state_dict": {"a": FULL}, "epoch": 3}), "'state_dict': dict, 'ep"),
    "a model within a model": (saved({"model": {"model": {"a": FULL}}}), "'model': dict"),
    "lists of weights": (saved({"a": [FULL, FULL]}), "'a': list"),
    "a text among weights": (saved({"a": FULL, "note": "hello"}), "'note': str"),
    "integer keys": (saved({0: FULL, 1: FULL}), "no plain state dict; it holds 0: Tensor, 1: Tensor"),
    "tuples as keys": (saved({("a", 1): FULL}), "no plain state dict"),
    "integer weights": (saved({"a": FULL.int()}), "'a' is int32, no table of real numbers"),
    "truth values": (saved({"a": FULL.bool()}), "'a' is bool"),
    "complex weights": (saved({"a": FULL.to(torch.complex64)}), "'a' is complex64"),
    "sparse weights": (saved({"a": FULL.to_sparse()}), "'a' is of the layout torch.sparse_coo"),
    "quantised weights": (saved({"a": torch.quantize_per_tensor(FULL, 0.1, 0, torch.qint8)}), "'a' is qint8"),
    "weights without content": (saved({"a": torch.empty(9, device="meta")}), "'a' is on the device meta"),
    "a tensor larger than the file": (saved({"a": torch.ones(1).expand(10**15)}), "more than the file"),
    "a half larger than the file": (saved({"a": torch.ones(1).half().expand(10**13)}), "more than the file"),
    "many views of one tensor": (
        saved({f"view {n}": torch.ones(9999).half().expand(999, 9999) for n in range(9)}),
        "more than the file",
    ),
    "names of another network": (saved(OrderedDict(a=FULL, b=HALF)), "do not fit sam2 miniature"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_holds_no_weights(name, row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, words = FILES[name]
    (tmp_path / "own.pt").write_bytes(data)
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=words) as caught:
        load_model(row, tmp_path, device="cpu")
    assert time.monotonic() - started < 10 and "own.pt" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["own.pt"]  # nothing ran


def changed(state, change) -> bytes:
    """The shipped weights, one tensor of them changed."""
    name = "sam_mask_decoder.iou_token.weight"
    return saved({"model": state | {name: change(state[name].clone())}})


def filled(value, dtype=None):
    def change(tensor):
        tensor.view(-1)[3] = value
        return tensor if dtype is None else tensor.to(dtype)

    return change


WEIGHTS = {
    "NaN": (filled(float("nan")), "iou_token.weight' holds NaN"),
    "infinity": (filled(float("inf")), "holds NaN or numbers beyond"),
    "negative infinity": (filled(float("-inf")), "holds NaN or numbers beyond"),
    "infinity in half precision": (filled(float("inf"), torch.float16), "holds NaN or numbers beyond"),
    "NaN in bfloat16": (filled(float("nan"), torch.bfloat16), "holds NaN or numbers beyond"),
    "NaN in 8 bits": (filled(float("nan"), torch.float8_e4m3fn), "holds NaN or numbers beyond"),
    "beyond single precision": (lambda tensor: tensor.double() * 1e300, "holds NaN or numbers beyond"),
    "beyond any network": (filled(1e30), "holds NaN or numbers beyond"),
    "integers": (lambda tensor: tensor.int(), "is int32"),
    "complex numbers": (lambda tensor: tensor.to(torch.complex64), "is complex64"),
    "another shape": (lambda tensor: tensor[:, :-1].clone(), "do not fit sam2 miniature"),
    "a transposed tensor": (lambda tensor: tensor.T.contiguous(), "do not fit sam2 miniature"),
    "no values": (lambda tensor: tensor[:0].clone(), "do not fit sam2 miniature"),
    "a number": (lambda tensor: 3.0, "sam_mask_decoder.iou_token.weight': float"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_one_wrong_tensor_is_named(name, state, row, tmp_path):
    change, words = WEIGHTS[name]
    (tmp_path / "own.pt").write_bytes(changed(state, change))
    with pytest.raises(CheckpointError, match=re.escape(words)):
        usable_sha256(row, tmp_path)


def test_a_changed_bit_is_noticed_by_the_checksum_of_its_part(row, tmp_path):
    data = bytearray(SHIPPED.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "own.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match="it is damaged .*the checksum of .* is another"):
        usable_sha256(row, tmp_path)


def test_zeros_a_missing_and_a_surplus_tensor(state, row, tmp_path):
    path = tmp_path / "own.pt"
    first = next(iter(state))
    for content, words in (
        ({name: torch.zeros_like(value) for name, value in state.items()}, "all its weights are 0"),
        ({name: value for name, value in state.items() if name != first}, "do not fit.*Missing key"),
        (state | {"surplus": FULL}, "do not fit.*Unexpected key"),
        ({f"module.{name}": value for name, value in state.items()}, "do not fit.*Missing key"),
    ):
        path.write_bytes(saved(content))
        with pytest.raises(CheckpointError, match=words):
            load_model(row, tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("family", "config", "words"),
    [
        ("sam2", "configs/sam2.1/sam2.1_hiera_x.yaml", "no known configuration.*Did you mean"),
        ("sam2", "/etc/passwd", "no known configuration"),
        ("sam2", "../sam2_hiera_t.yaml", "no known configuration"),
        ("sam2", "file:///etc/hydra.yaml", "no known configuration"),
        ("sam2", "configs/sam2.1/sam2.1_hiera_t.yaml +model._target_=os.mkdir", "no known configuration"),
        ("sam2", "configs/sam2.1_training/sam2.1_hiera_b+_MOSE_finetune.yaml", "no known configuration"),
        ("sam2", "vit_b", "no known configuration"),
        ("sam", "vit_x", "no known configuration of sam.*vit_h"),
        ("sam", "configs/sam2.1/sam2.1_hiera_t.yaml", "no known configuration of sam"),
        ("sam3", "miniature", "'sam3' is no known family"),
        ("sam", "vit_b", "image_size is 256, but SAM's vit_b has an input of 1024"),
    ],
)  # fmt: skip
def test_a_configuration_is_a_name_of_the_package(family, config, words, row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.pt").write_bytes(SHIPPED.read_bytes())
    asked = row.model_copy(update={"family": family, "config": config})
    with pytest.raises(CheckpointError, match=words):
        load_model(asked, tmp_path, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["own.pt"]


def test_a_replaced_file_is_noticed_in_a_living_session(row, state, tmp_path):
    path = tmp_path / "own.pt"
    path.write_bytes(SHIPPED.read_bytes())
    before = file_sha256(path)
    times = path.stat().st_mtime_ns
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))  # as large as before, and as old
    os.utime(path, ns=(times, times))
    assert file_sha256(path) != before
    path.unlink()
    with pytest.raises(CheckpointError, match="is not there"):
        verified_sha256(path, None)


def test_weights_without_a_hash_are_unverified_and_held_to_their_first_download(row, manifest, tmp_path):
    assert not is_verified(row) and is_verified(manifest.checkpoint("miniature_sam2"))
    path = tmp_path / "own.pt"
    path.write_bytes(SHIPPED.read_bytes())
    assert load_model(row, tmp_path, device="cpu").checkpoint_sha256 == file_sha256(SHIPPED)
    record_sha256(path)
    assert verified_sha256(path, None) == file_sha256(SHIPPED)
    path.write_bytes(saved({"a": FULL}))
    with pytest.raises(CheckpointError, match="that of its first download was"):
        verified_sha256(path, None)
