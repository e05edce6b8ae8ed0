"""Simulated anatomy: reproducible, with the objects it promises, from seeds that training never uses."""

import hashlib

import numpy as np
import pytest
from scipy import ndimage

from medsam_nb.data.simulated import anatomy
from training import appearance, label_volumes

MODALITIES = ("mri", "ct", "pet", "ultrasound", "xray")


def test_the_seed_ranges_are_disjoint():
    bases = sorted(
        (label_volumes.TRAIN_SEED_BASE, label_volumes.VALIDATION_SEED_BASE, anatomy.DEMO_SEED_BASE)
    )
    assert all(b - a >= anatomy.SEEDS_PER_RANGE for a, b in zip(bases, bases[1:], strict=False))


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_case_is_a_function_of_its_seed(modality):
    first, again, other = (anatomy.simulate_case(modality, seed, shape=(8, 64, 64)) for seed in (4, 4, 5))
    assert np.array_equal(first.image, again.image) and np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.image, other.image)
    assert first.image.dtype == np.float32 and first.labels.dtype == np.uint8
    assert first.image.shape == first.labels.shape
    assert np.isfinite(first.image).all()


@pytest.mark.parametrize("modality", MODALITIES[:4])
@pytest.mark.parametrize(
    ("shape", "spacing"), [((24, 128, 128), (3.0, 1.0, 1.0)), ((10, 128, 128), (5.0, 1, 1))]
)
def test_objects_begin_and_end_inside_the_volume(modality, shape, spacing):
    for seed in range(4):
        case = anatomy.simulate_case(modality, seed, shape=shape, spacing_mm=spacing)
        assert set(case.objects) == {"organ", "lesion", "paired_organ", "vessel", "shell"}
        assert case.spacing_mm == spacing
        for name, value in case.objects.items():
            present = (case.labels == value).any(axis=(1, 2))
            assert present.sum() >= 2, name
            assert not present[0] and not present[-1], f"{name} touches the end of the volume"


def test_the_lesion_lies_in_the_organ_and_the_pair_has_two_components():
    for seed in range(4):
        case = anatomy.simulate_case("ct", seed)
        lesion, organ = case.labels == case.objects["lesion"], case.labels == case.objects["organ"]
        rim = ndimage.binary_dilation(lesion) & ~lesion
        assert organ[rim].mean() > 0.5
        pair = case.labels == case.objects["paired_organ"]
        middle = np.flatnonzero(pair.any(axis=(1, 2)))[pair.any(axis=(1, 2)).sum() // 2]
        assert ndimage.label(pair[middle])[1] == 2


def test_ct_is_in_hounsfield_units_and_pet_is_positive():
    ct = anatomy.simulate_case("ct", 1)
    assert abs(np.median(ct.image[ct.labels == 0]) + 1000) < 15
    assert 60 < ct.image[ct.labels == ct.objects["organ"]].mean() < 150
    pet = anatomy.simulate_case("pet", 1)
    assert pet.image.min() >= 0
    hot, cold = (pet.image[pet.labels == pet.objects[n]].mean() for n in ("lesion", "organ"))
    assert hot > 1.5 * cold


def test_an_xray_is_one_slice():
    assert anatomy.simulate_case("xray", 2).image.shape == (1, 192, 192)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("mr", 0), "unknown modality 'mr'"),
        (("ct", -1), "outside 0"),
        (("ct", anatomy.SEEDS_PER_RANGE), "outside 0"),
    ],
)
def test_wrong_requests_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        anatomy.simulate_case(*arguments)
    with pytest.raises(ValueError, match="fewer than 6 slices"):
        anatomy.simulate_case("ct", 0, shape=(5, 64, 64))


def test_label_volumes_hold_their_objects():
    for seed in range(6):
        volume = label_volumes.random_label_volume(seed, shape=(8, 64, 64))
        again = label_volumes.random_label_volume(seed, shape=(8, 64, 64))
        assert hashlib.sha256(volume.labels).digest() == hashlib.sha256(again.labels).digest()
        assert volume.objects == again.objects and volume.objects
        assert all(value > 0 for labels in volume.objects for value in labels)


@pytest.mark.parametrize("style", appearance.STYLE_WEIGHTS)
def test_every_style_renders_the_whole_range(style):
    rng = np.random.default_rng(3)
    labels = label_volumes.random_label_volume(11, shape=(4, 96, 96)).labels
    image = appearance.render_random(labels, rng, style)
    assert image.shape == labels.shape and image.dtype == np.float32
    assert image.min() >= 0 and image.max() <= 1 and image.std() > 0.02
