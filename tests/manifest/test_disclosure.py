"""Disclosure: a model that is measured on what it was trained on is named, and so is what nobody knows."""

from pathlib import Path

import pytest

from medsam_nb.errors import ManifestError
from medsam_nb.manifest.adaptation import FineTuning
from medsam_nb.manifest.disclosure import Seen, seen, seen_warnings
from medsam_nb.manifest.reading import load_manifest

SHIPPED = Path(__file__).parents[2] / "data_manifest.yaml"
MANIFEST = load_manifest(SHIPPED)
STUDY = [name for name, row in MANIFEST.data_sets.items() if row.group == "study"]


def test_a_model_measured_on_its_training_data_is_named_with_the_place_where_that_stands():
    (warning,) = seen_warnings(
        MANIFEST, ["ct_spleen", "us_muscle", "mri_heart"], ["sam2_hiera_large", "medsam"]
    )
    assert warning.startswith("medsam was trained on images of ct_spleen (Ma et al. 2024")
    assert "MSD-Spleen; unverified) and mri_heart (" in warning and "us_muscle" not in warning
    assert warning.endswith("not how it does on new images.")
    assert seen(MANIFEST, ["ct_spleen"], ["medsam"]) == [
        Seen("medsam", "ct_spleen", "Ma et al. 2024, supplementary tables: MSD-Spleen", False)
    ]


def test_models_of_photographs_and_simulated_images_give_no_warning():
    models = ["sam2_hiera_large", "sam2.1_hiera_tiny", "sam_vit_h", "miniature_sam2", "miniature_sam"]
    assert seen_warnings(MANIFEST, list(MANIFEST.data_sets), models) == []
    assert seen_warnings(MANIFEST, ["us_muscle", "mri_breast"], ["medsam"]) == []
    assert seen_warnings(MANIFEST, [], ["medsam"]) == seen_warnings(MANIFEST, STUDY, []) == []


def test_what_is_not_known_is_said():
    first, second = seen_warnings(MANIFEST, ["ct_spleen", "simulated_ct"], ["medsam2_latest", "medicosam"])
    assert first == (
        "Which medical images medsam2_latest was trained on is only partly known here: that it has seen "
        "images of ct_spleen cannot be ruled out."
    )
    assert second.startswith("Which medical images medicosam was trained on is not known here")
    assert seen_warnings(MANIFEST, ["simulated_ct", "mni152"], ["medsam2_latest"]) == []


def test_own_models_and_data_sets(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(
        """\
data_sets:
  mine:
    title: Mine
    modality: CT
    dimension: 3
    objects: {spleen: [1]}
    intensity: {policy: window, low: -160, high: 240}
    layout: {name: nifti_pairs}
    seen_by: {tuned: our lab's notes of 2025}
checkpoints:
  tuned:
    family: sam2
    config: configs/sam2.1/sam2.1_hiera_t.yaml
    file: tuned.pt
    url: https://example.org/tuned.pt
    licence: ours
    citation: ours
""",
        encoding="utf-8",
    )
    manifest = load_manifest(SHIPPED, own)
    known, unknown = seen_warnings(manifest, ["mine", "ct_colon"], ["tuned"])
    assert "mine (our lab's notes of 2025):" in known
    assert "images of ct_colon cannot be ruled out" in unknown and "mine" not in unknown
    own.write_text(own.read_text(encoding="utf-8").replace("{tuned:", "{tunde:"), encoding="utf-8")
    with pytest.raises(ManifestError, match="own.yaml, mine.seen_by: 'tunde'.*Did you mean 'tuned'"):
        load_manifest(SHIPPED, own)
    with pytest.raises(ManifestError, match="'yours'"):
        seen_warnings(load_manifest(SHIPPED), ["yours"], ["medsam"])
    with pytest.raises(ManifestError, match="'medsan'.*medsam"):
        seen_warnings(load_manifest(SHIPPED), ["ct_colon"], ["medsan"])


def test_every_shipped_disclosure_names_its_source_and_says_whether_it_was_checked():
    listed = {model for model, row in MANIFEST.checkpoints.items() if row.medical_images == "listed"}
    assert listed == {"medsam"}
    for name, row in MANIFEST.data_sets.items():
        for model, where in row.seen_by.items():
            assert model in MANIFEST.checkpoints and "20" in where, name
            assert any(fact.startswith("seen_by") for fact in row.unverified), name
    seen_sets = {name for name in STUDY if MANIFEST.data_set(name).seen_by}
    assert len(seen_sets) == 13 and {"us_kidney", "pet_wholebody", "xray_chest"} <= seen_sets


def test_what_is_fine_tuned_twice_has_seen_what_the_first_has_seen():
    first = MANIFEST.checkpoint("medsam")
    rows = dict(MANIFEST.checkpoints)
    for name, parent in (("once", "medsam"), ("twice", "once")):
        made = FineTuning.model_construct(parent=parent)
        rows[name] = first.model_copy(update={"name": name, "fine_tuned": made})
    manifest = MANIFEST.model_copy(update={"checkpoints": rows})
    assert [one.model for one in seen(manifest, ["ct_spleen"], ["medsam", "once", "twice"])] == [
        "medsam", "once", "twice"
    ]  # fmt: skip
