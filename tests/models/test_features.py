"""The feature cache: the same bits from memory, from disk and from the encoder, whatever happens to files."""

import dataclasses
import gc
import hashlib
import io
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import networks
from PIL import Image
from sam2.utils.misc import load_video_frames
from sam2.utils.transforms import SAM2Transforms

from medsam_nb.errors import StudyError
from medsam_nb.models import encoding, feature_folder, features
from medsam_nb.models.ahead import SLICES_AHEAD, Ahead
from medsam_nb.models.encoding import encoder_sha256
from medsam_nb.models.features import SliceFeatures

SLICES = networks.textured_slices(5, 30, 36, seed=8)


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(
        torch.equal(a, b) and a.dtype == b.dtype and a.stride() == b.stride()
        for a, b in zip(left, right, strict=True)
    )


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture(params=["float32", "bfloat16"])
def model(request):
    return networks.small_model(request.param)


def test_equals_the_encoder_of_the_package(model):
    found = SliceFeatures(model, SLICES)
    image = encoding.sam2_transforms(model.image_size)(encoding.as_rgb(SLICES[3]))[None]
    with torch.inference_mode(), model.precision():
        expected = model.network.forward_image(image)
        backbone = found.backbone(3)
    assert same(backbone["backbone_fpn"], expected["backbone_fpn"])
    assert torch.equal(backbone["vision_pos_enc"][-1], expected["vision_pos_enc"][-1])
    sizes = [level.shape[-2:] for level in expected["vision_pos_enc"]]
    assert [level.shape[-2:] for level in backbone["vision_pos_enc"]] == sizes


@pytest.mark.parametrize("frames", ["image", "video"])
def test_colours_are_encoded_as_they_are(model, frames, tmp_path):
    colours = np.stack([SLICES, SLICES[:, ::-1], 255 - SLICES], axis=-1)
    found = SliceFeatures(model, colours, frames=frames, folder=tmp_path)
    shown = encoding.sam2_transforms(model.image_size)(colours[3])
    if frames == "video":
        resized = np.asarray(Image.fromarray(colours[3]).resize((model.image_size,) * 2)) / 255.0
        mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # ImageNet's
        shown = ((torch.from_numpy(resized).float() - mean) / spread).permute(2, 0, 1)
    with torch.inference_mode(), model.precision():
        expected = model.network.forward_image(shown[None].contiguous())["backbone_fpn"]
    assert all(torch.equal(a, b) for a, b in zip(found[3], expected, strict=True))
    grey = SliceFeatures(model, SLICES, frames=frames, folder=tmp_path)
    assert not same(grey[3], found[3])
    equal = SliceFeatures(model, np.repeat(SLICES[..., None], 3, axis=-1), frames=frames)
    assert same(equal[3], grey[3])


def test_the_budget_holds_and_the_bits_stay(model):
    plain = SliceFeatures(model, SLICES)
    size = sum(level.nbytes for level in plain[0])
    tight = SliceFeatures(model, SLICES, budget_bytes=2 * size)
    for index in (0, 1, 2, 2, 1, 0):
        assert same(tight[index], plain[index])
        assert len(tight._kept) <= 2
    assert (plain.encoded, tight.encoded) == (3, 4)


def test_a_later_run_reads_what_an_earlier_one_wrote(model, tmp_path):
    plain = SliceFeatures(model, SLICES)
    first = SliceFeatures(model, SLICES, folder=tmp_path, budget_bytes=0)
    assert all(same(first[index], plain[index]) for index in range(5))
    second = SliceFeatures(model, SLICES, folder=tmp_path, budget_bytes=0)
    assert all(same(second[index], plain[index]) for index in range(5))
    assert (first.encoded, second.encoded, len(files(tmp_path))) == (5, 0, 5)


@pytest.mark.parametrize("other", ["weights", "pixels", "dtype", "size", "threads"])
def test_what_features_depend_on_is_in_the_key(other, tmp_path):
    SliceFeatures(networks.small_model(), SLICES[:1], folder=tmp_path)[0]
    threads, slices, model = torch.get_num_threads(), SLICES[:1], networks.small_model()
    if other == "weights":
        model = networks.small_model(seed=1)
    elif other == "dtype":
        model = networks.small_model("bfloat16")
    elif other == "size":
        model = networks.small_model(image_size=128)
    elif other == "pixels":
        slices = slices.copy()
        slices[0, 0, 0] ^= 1
    try:
        if other == "threads":
            torch.set_num_threads(threads + 1)
        again = SliceFeatures(model, slices, folder=tmp_path)
        assert same(again[0], SliceFeatures(model, slices)[0])
    finally:
        torch.set_num_threads(threads)
    assert again.encoded == 1
    assert len(files(tmp_path)) == 2


def test_the_key_follows_the_weights_not_their_name():
    network = networks.small_model(seed=3).network
    before = encoder_sha256(networks.small_model(seed=3))
    bias = network.image_encoder.neck.convs[0].conv.bias
    with torch.no_grad():
        bias[0] += 1
    after = encoder_sha256(networks.small_model(seed=3))
    with torch.no_grad():
        bias[0] -= 1
    assert before != after


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped bit", "another slice's", "not ours"])
def test_a_damaged_file_is_noticed_and_replaced(damage, model, tmp_path):
    first = SliceFeatures(model, SLICES, folder=tmp_path)
    expected, _ = first[0], first[1]
    key = first._folder.key(SLICES[0])
    (path,) = [path for path in files(tmp_path) if path.stem == key]
    (other,) = [path for path in files(tmp_path) if path.stem != key]
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 4
    path.write_bytes(
        {
            "truncated": data[: len(data) // 3],
            "empty": b"",
            "flipped bit": bytes(flipped),
            "another slice's": other.read_bytes(),
            "not ours": b"\x80\x04cos\nsystem\n",
        }[damage]
    )
    again = SliceFeatures(model, SLICES, folder=tmp_path)
    with pytest.warns(UserWarning, match=key):
        assert same(again[0], expected)
    assert path.read_bytes() == data


def sealed(key: str, content: bytes) -> bytes:
    """A file whose head says that all is well."""
    digest = hashlib.sha256(content).digest()
    return feature_folder.MAGIC + key.encode() + digest + content


def saved(levels: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(levels, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("what", "content"),
    {
        "no tensors": lambda levels: saved([1, 2, 3]),
        "a dictionary": lambda levels: saved(dict(enumerate(levels))),
        "a tensor": lambda levels: saved(levels[0]),
        "nothing": lambda levels: saved([]),
        "a level less": lambda levels: saved(levels[:-1]),
        "a level more": lambda levels: saved([*levels, levels[-1]]),
        "levels turned round": lambda levels: saved(levels[::-1]),
        "another size": lambda levels: saved([*levels[:-1], levels[-1][..., :-1].clone()]),
        "another number of axes": lambda levels: saved([*levels[:-1], levels[-1][0]]),
        "double precision": lambda levels: saved([level.double() for level in levels]),
        "integers": lambda levels: saved([level.int() for level in levels]),
        "sparse levels": lambda levels: saved([level.to_sparse() for level in levels]),
        "NaN": lambda levels: saved([*levels[:-1], levels[-1] * float("nan")]),
        "a text file": lambda levels: b"hello",
        "an empty file": lambda levels: b"",
        "a pickle that would call": lambda levels: b"\x80\x04cos\nsystem\n(S'touch ran'\ntR.",
    }.items(),
)
@pytest.mark.filterwarnings("ignore:.*[Ss]parse")
def test_content_that_no_slice_has_is_made_anew_under_whatever_name(what, content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = networks.small_model()
    first = SliceFeatures(model, SLICES, folder=tmp_path / "features")
    levels = [level.clone() for level in first[0]]
    (path,) = files(tmp_path / "features")
    data = path.read_bytes()
    path.write_bytes(sealed(path.stem, content(levels)))
    again = SliceFeatures(model, SLICES, folder=tmp_path / "features")
    with pytest.warns(UserWarning, match=path.stem):
        assert same(again[0], levels)
    assert again.encoded == 1 and path.read_bytes() == data
    assert not (tmp_path / "ran").exists()


def test_the_shapes_are_those_of_the_networks():
    for made in (networks.small_model("bfloat16"), networks.small_model(version="2.0"), networks.small_sam()):
        assert [level.shape for level in SliceFeatures(made, SLICES)[0]] == encoding.feature_shapes(made)


def test_a_full_disk_is_said_once_and_the_run_goes_on(model, tmp_path, monkeypatch):
    def no_space(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_folder, "write_atomically", no_space)
    found = SliceFeatures(model, SLICES, folder=tmp_path)
    with pytest.warns(UserWarning, match="No space left") as caught:
        assert same(found[0], SliceFeatures(model, SLICES)[0])
        assert same(found[1], SliceFeatures(model, SLICES)[1])
    assert len([one for one in caught if "No space" in str(one.message)]) == 1
    assert files(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with room for two slices."""
    size = sum(level.nbytes for level in SliceFeatures(networks.small_model(), SLICES)[0])
    options = ["-t", "tmpfs", "-o", f"size={int(2.5 * size)}", "tmpfs", str(tmp_path)]
    try:
        mounted = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_disk_that_is_really_full(small_disk):
    plain, model = SliceFeatures(networks.small_model(), SLICES), networks.small_model()
    found = SliceFeatures(model, SLICES, folder=small_disk, budget_bytes=0)
    with pytest.warns(UserWarning, match="cannot be stored"):
        assert all(same(found[index], plain[index]) for index in range(5))
    stored = files(small_disk)
    assert 1 <= len(stored) <= 2
    assert not any(path.name.startswith(".partial") for path in stored)
    later = SliceFeatures(model, SLICES, folder=small_disk, budget_bytes=0)
    with pytest.warns(UserWarning, match="cannot be stored"):
        assert all(same(later[index], plain[index]) for index in range(5))
    assert later.encoded == 5 - len(stored)


def test_the_folder_keeps_its_limit(tmp_path):
    model = networks.small_model()
    SliceFeatures(model, SLICES, folder=tmp_path / "one")[0]
    size = files(tmp_path / "one")[0].stat().st_size
    folder, limit = tmp_path / "limited", int(3.5 * size)
    found = SliceFeatures(model, SLICES, folder=folder, folder_bytes=limit, budget_bytes=0)
    for index in range(5):
        found[index]
        assert sum(path.stat().st_size for path in files(folder)) <= limit
    again = SliceFeatures(model, SLICES, folder=folder, folder_bytes=limit)
    assert same(again[4], SliceFeatures(model, SLICES)[4])  # the newest is there
    assert again.encoded == 0
    none = SliceFeatures(model, SLICES, folder=tmp_path / "none", folder_bytes=size - 1)
    none[0]
    assert files(tmp_path / "none") == []


WRITER = """
import sys
import torch
from helpers import networks
from medsam_nb.models.features import SliceFeatures
torch.set_num_threads(int(sys.argv[2]))
slices = networks.textured_slices(5, 30, 36, seed=8)
found = SliceFeatures(networks.small_model(), slices, folder=sys.argv[1], budget_bytes=0)
for _ in range(3):
    for index in range(5):
        found[index]
"""


def test_two_processes_at_once(tmp_path):
    paths = [str(Path(__file__).parents[1]), str(Path(features.__file__).parents[2])]
    command = [sys.executable, "-W", "error::UserWarning:medsam_nb", "-c", WRITER, str(tmp_path)]
    command.append(str(torch.get_num_threads()))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    writers = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(files(tmp_path)) == 5
    model = networks.small_model()
    again = SliceFeatures(model, SLICES, folder=tmp_path)
    assert all(same(again[index], SliceFeatures(model, SLICES)[index]) for index in range(5))
    assert again.encoded == 0


def test_slices_that_are_no_uint8_volume_are_refused():
    with pytest.raises(ValueError, match="float32"):
        SliceFeatures(networks.small_model(), SLICES.astype(np.float32))
    with pytest.raises(ValueError, match=r"\(5, 30, 36, 4\)"):
        SliceFeatures(networks.small_model(), np.repeat(SLICES[..., None], 4, axis=-1))


def loaded_frames(folder: Path, slices: np.ndarray, image_size: int) -> torch.Tensor:
    """Return slices as SAM 2's own loader of video folders reads them, shape (z, 3, image_size, image_size).

    The loader takes files by the ending of JPEG only; their content may be of any kind, here lossless PNG.
    """
    for index, grey in enumerate(slices):
        Image.fromarray(grey).save(folder / f"{index}.jpg", format="PNG")
    frames, _, _ = load_video_frames(
        str(folder), image_size, offload_video_to_cpu=True, compute_device=torch.device("cpu")
    )
    return frames


@pytest.mark.parametrize(
    ("shape", "image_size"), [((3, 30, 36), 64), ((2, 300, 170), 64), ((2, 64, 64), 64), ((1, 5, 90), 256)]
)
def test_video_frames_are_those_of_the_packages_loader_bit_for_bit(tmp_path, shape, image_size):
    slices = networks.textured_slices(*shape, seed=2)
    expected = loaded_frames(tmp_path, slices, image_size)
    for grey, frame in zip(slices, expected, strict=True):
        assert torch.equal(encoding.as_video_frame(grey, image_size), frame)


def test_features_of_video_frames_are_the_packages_and_others_than_of_images(tmp_path):
    model = networks.small_model()
    (tmp_path / "frames").mkdir()
    frames = loaded_frames(tmp_path / "frames", SLICES, model.image_size)
    video = SliceFeatures(model, SLICES, frames="video", folder=tmp_path / "features")
    with torch.inference_mode():
        expected = model.network.forward_image(frames[2:3])
    assert same(video.backbone(2)["backbone_fpn"], expected["backbone_fpn"])
    image = SliceFeatures(model, SLICES, folder=tmp_path / "features")
    assert not torch.allclose(image[2][-1], video[2][-1])
    assert (image.encoded, video.encoded, len(files(tmp_path / "features"))) == (1, 1, 2)  # two keys


def test_sam_has_one_way_to_resize():
    with pytest.raises(StudyError, match="'video' is no known way to resize"):
        SliceFeatures(networks.small_sam(), SLICES, frames="video")


@pytest.mark.parametrize("shape", [(160, 160), (217, 181), (1200, 900), (5, 7)])
@pytest.mark.parametrize("image_size", [256, 1024])
def test_a_grey_slice_is_resized_once_with_the_bits_of_three_channels(shape, image_size):
    grey = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    expected = SAM2Transforms(image_size, mask_threshold=0.0)(np.repeat(grey[..., None], 3, axis=-1))
    found = encoding.as_image(grey, image_size)
    assert torch.equal(found, expected) and found.stride() == expected.stride()


@pytest.mark.parametrize("frames", ["image", "video"])
def test_slices_prepared_ahead_are_the_same(model, frames):
    alone = SliceFeatures(model, SLICES, frames=frames, ahead=False)
    ahead = SliceFeatures(model, SLICES, frames=frames, ahead=True)
    ahead.expect([3, 1, 1, 4])
    assert all(same(ahead[index], alone[index]) for index in (3, 4, 0, 1, 2, 3))
    assert ahead.encoded == len(SLICES)


def test_sam_prepares_ahead_too():
    sam = networks.small_sam()
    ahead = SliceFeatures(sam, SLICES, ahead=True)
    ahead.expect(range(len(SLICES)))
    alone = SliceFeatures(sam, SLICES)
    assert all(same(ahead[index], alone[index]) for index in range(len(SLICES)))


def test_what_is_expected_is_begun_before_it_is_asked_for():
    begun, go_on = [], threading.Event()

    def work(key):
        begun.append((key, threading.current_thread() is threading.main_thread()))
        assert go_on.wait(10)
        return key * 10

    ahead = Ahead(work)
    go_on.set()
    ahead.expect([4, 2, 7, 9])
    assert [ahead.take(key) for key in (4, 2, 5, 7, 9, 4)] == [40, 20, 50, 70, 90, 40]
    keys = [key for key, _ in begun]
    assert sorted(keys) == [2, 4, 4, 5, 7, 9]  # each once, and again what was asked for again
    assert {key for key, here in begun if here} <= {5, 4}  # what was not expected
    go_on.clear()
    ahead.expect(range(100, 200))
    assert len(ahead._begun) == SLICES_AHEAD
    go_on.set()


def test_what_is_passed_over_holds_nothing_up():
    ahead = Ahead(lambda key: key)
    ahead.expect(range(6))
    assert ahead.take(3) == 3  # 0 to 2 came from elsewhere
    assert set(ahead._begun) == {4, 5}
    ahead.passed(5)
    assert not ahead._begun and not ahead._upcoming


def test_features_end_with_their_use():
    ahead = SliceFeatures(networks.small_model("float32"), SLICES, ahead=True)
    ahead.expect(range(len(SLICES)))
    ahead[1]
    watched = weakref.ref(ahead)
    gc.disable()  # what a cycle holds stays on a GPU until Python looks for cycles, which it may never do
    try:
        del ahead
        assert watched() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("what", ["candidates", "correction_loops"])
def test_ahead_in_a_process_that_has_prepared_nothing_yet(what):
    code = f"""
import numpy as np
from functools import partial
from helpers import networks
from medsam_nb.evaluation import single_slices, correction_loops
from medsam_nb.models.features import SliceFeatures
from medsam_nb.protocol.prompts import Prompt
slices, model = networks.textured_slices(6, 30, 36, seed=8), networks.small_model("float32")
features, box = SliceFeatures(model, slices, ahead=True), Prompt(box=(5, 5, 20, 20))
truth = np.zeros(slices.shape, bool)
truth[1:5, 5:20, 5:20] = True
calls = {{
    "candidates": lambda: single_slices.candidates(
        model, slices, {{z: (z, box) for z in range(6)}}, features=features),
    "correction_loops": lambda: correction_loops.correction_loops(
        model, truth, {{3: box}}, features, ("x",), loops=1),
}}
assert list(calls[{what!r}]())
"""
    root = Path(__file__).parents[2]
    paths = os.pathsep.join(map(str, (root, root / "tests")))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_model_reads_the_slices_of_its_run_and_stores_none(tmp_path):
    model = networks.small_model("float32")
    stored = SliceFeatures(model, SLICES, folder=tmp_path)
    kept = [stored[index] for index in range(3)]
    there, reading = files(tmp_path), dataclasses.replace(model, encoded_slices=tmp_path)
    found = SliceFeatures(reading, SLICES)
    assert all(same(found[index], kept[index]) for index in range(3)) and found.encoded == 0
    found[4]
    assert found.encoded == 1 and files(tmp_path) == there
    other = found.of_other(SLICES[::-1])
    assert same(other[4], kept[0]) and other.encoded == 0
    nothing = SliceFeatures(dataclasses.replace(model, encoded_slices=tmp_path / "none"), SLICES)
    assert same(nothing[0], kept[0]) and not (tmp_path / "none").exists()


def test_a_failure_ahead_is_raised_where_the_slice_is_asked_for():
    def work(key):
        raise MemoryError(f"slice {key}")

    ahead = Ahead(work)
    ahead.expect([1, 2])
    with pytest.raises(MemoryError, match="slice 1"):
        ahead.take(1)


def test_on_a_gpu_the_budget_is_a_quarter_of_what_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (36 << 30, 80 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 6 << 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2 << 30)
    size = 16 << 20
    assert features.default_budget(torch.device("cuda"), size) == 10 << 30  # 640 slices: none encoded twice
    assert features.default_budget(torch.device("cpu"), size) == 64 * size
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 80 << 30))
    assert features.default_budget(torch.device("cuda"), size) == 64 * size
