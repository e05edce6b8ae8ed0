"""The prompts file: what is written comes back, on the same voxel however the image is cut, or is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from medsam_nb.errors import InputError
from medsam_nb.protocol.prompts import Prompt
from medsam_nb.protocol.prompts_file import (
    image_sha256,
    lines_of,
    read_prompts,
    schema_text,
    slice_position_mm,
    write_prompts,
)
from medsam_nb.protocol.prompts_placed import prompts_on
from medsam_nb.protocol.volume import Case, Volume, canonical, reoriented

ROOT = Path(__file__).parents[2]


def oblique_sagittal(shape=(7, 12, 15)):
    """A sagittal acquisition, 4 mm thick, tilted about two axes: (slice, row, column) is about (L, I, P)."""
    a, b = np.deg2rad(12), np.deg2rad(-7)
    tilt = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tilt = tilt @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = tilt @ np.array([[-4.0, 0, 0], [0, 0, -0.7], [0, -1.1, 0]])
    affine[:3, 3] = 31.25, -17.5, 88.125
    return Volume(np.random.default_rng(1).normal(size=shape).astype(np.float32), affine)


def case_of(image, **changes):
    labels = np.zeros(image.array.shape, np.uint8)
    labels[1:-1, 2:-2, 2:-2] = 1
    return Case("set", "one", "MR", image, labels, {"organ": (1,), "tumour": (2,)}, **changes)


PROMPTS = {
    ("organ", 2): Prompt(((4, 5), (7.25, 3.5), (1, 9)), (2, 3, 8, 9), labels=(1, 0, 1)),
    ("organ", 5): Prompt(((0, 0),)),
    ("tumour", 5): Prompt(box=(0.5, 1, 14, 11)),
}


def written(case, prompts, path):
    lines = []
    for (name, index), prompt in prompts.items():
        lines += lines_of(case, name, index, prompt, author="reader 1", order=len(lines))
    write_prompts(path, lines)
    return read_prompts(path)


def test_what_is_written_comes_back(tmp_path):
    case = case_of(canonical(oblique_sagittal()))
    mask = np.random.default_rng(0).random(case.labels.shape[1:]) > 0.6
    prompts = PROMPTS | {("organ", 3): Prompt(mask=mask), ("organ", 4): Prompt(mask=~mask)}
    lines = written(case, prompts, tmp_path / "prompts.jsonl")
    found = prompts_on(case, lines, case.objects)
    assert {key: prompt.content for key, prompt in found.items()} == {
        k: p.content for k, p in prompts.items()
    }
    assert [line.order for line in lines] == list(range(len(lines)))
    assert {line.author for line in lines} == {"reader 1"}
    other = case_of(case.image)
    assert prompts_on(Case("set", "two", "MR", other.image, other.labels, other.objects), lines) == {}


@pytest.mark.parametrize("orientation", ["LIP", "RSA", "ASR", "PIL", "SPL", "IAR"])
def test_a_point_stays_on_its_voxel_in_every_order_of_the_axes(orientation, tmp_path):
    """Written on the sagittal acquisition as it is shown, read on the same image cut in another plane."""
    image = canonical(oblique_sagittal())
    assert image.orientation == "LIP"
    lines = written(case_of(image), {("organ", 2): Prompt(((4, 5),), labels=(0,))}, tmp_path / "p.jsonl")
    other = reoriented(image, orientation)
    assert image_sha256(other) == image_sha256(image)
    ((_, index), prompt), *none = prompts_on(case_of(other), lines).items()
    ((x, y),) = prompt.points
    assert not none and prompt.labels == (0,)
    assert other.array[index, y, x] == image.array[2, 5, 4]
    position = (other.affine @ [index, y, x, 1])[:3]
    np.testing.assert_allclose(position, (image.affine @ [2, 5, 4, 1])[:3], atol=1e-6)


def test_boxes_and_masks_follow_flips_and_transposition_and_are_refused_across_slices(tmp_path):
    image = canonical(oblique_sagittal((7, 12, 12)))
    mask = np.zeros((12, 12), bool)
    mask[2:5, 7:11] = mask[5, 7] = True
    prompts = {("organ", 2): Prompt(box=(7, 2, 10, 5)), ("organ", 3): Prompt(mask=mask)}
    lines = written(case_of(image), prompts, tmp_path / "p.jsonl")
    for orientation in ("RSA", "LPI", "RAS"):  # flipped, transposed, both
        other = reoriented(image, orientation)
        found = {
            prompt.mask is None: (i, prompt) for (_, i), prompt in prompts_on(case_of(other), lines).items()
        }
        index, boxed = found[True]
        x0, y0, x1, y1 = boxed.box
        assert sorted(other.array[index, y0 : y1 + 1, x0 : x1 + 1].ravel()) == sorted(
            image.array[2, 2:6, 7:11].ravel()
        )
        index, masked = found[False]
        assert sorted(other.array[index][masked.mask]) == sorted(image.array[3][mask])
    with pytest.raises(InputError, match="box 0 of organ, slice 2.*one slice"):
        prompts_on(case_of(reoriented(image, "SPL")), lines)


def test_what_does_not_fit_is_named(tmp_path):
    image = canonical(oblique_sagittal())
    case, path = case_of(image), tmp_path / "p.jsonl"
    lines = written(case, PROMPTS, path)
    moved = image.affine.copy()
    moved[0, 3] += 3
    for other in (Volume(image.array, moved), Volume(image.array + 1, image.affine)):
        with pytest.raises(InputError, match="box 0 of organ, slice 2.*another image"):
            prompts_on(case_of(other), lines)
    with pytest.raises(InputError, match="no known object"):
        prompts_on(case, lines, ["organ", "liver"])
    contradicting = [lines[1].model_copy(update={"pixels": [4.0, 6.0]})]
    with pytest.raises(InputError, match="point 1 of organ, slice 2.*1.09 mm apart"):
        prompts_on(case, contradicting)
    outside = lines_of(case, "organ", 2, Prompt(((40, 5),)))
    with pytest.raises(InputError, match="outside the image"):
        prompts_on(case, outside)
    path.write_text(path.read_text().replace('"kind":"point"', '"kind":"dot"', 1))
    with pytest.raises(InputError, match="line 2: kind"):
        read_prompts(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_prompts(tmp_path / "nowhere.jsonl")


def test_the_place_of_a_slice_grows_with_its_number():
    image = canonical(oblique_sagittal())
    steps = np.diff([slice_position_mm(image, z) for z in range(7)])
    np.testing.assert_allclose(steps, 4.0)


def test_the_published_schema_is_the_reader_s():
    shipped = (ROOT / "data_prompts.schema.json").read_text(encoding="utf-8")
    assert shipped == schema_text()
    assert set(json.loads(shipped)["required"]) >= {"data_sha256", "slice_index", "pixels", "ras_mm", "kind"}
