"""The manifest: the shipped file is valid, and mistakes are reported with line, field and remedy."""

from pathlib import Path

import jsonschema
import pytest
import yaml

from medsam_nb.errors import ManifestError
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.manifest.schema import schema, schema_text

SHIPPED = Path(__file__).parents[2] / "data_manifest.yaml"
OWN = """\
data_sets:
  my_spleens:
    title: My spleens
    modality: CT
    dimension: 3
    objects: {spleen: [1]}
    intensity: {policy: window, low: -160, high: 240}
    layout: {name: nifti_pairs}
"""


def write(tmp_path, text):
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_shipped_manifest_is_valid():
    manifest = load_manifest(SHIPPED)
    assert {"mni152", "simulated_ct", "simulated_pet", "simulated_ultrasound", "simulated_xray"} <= set(
        manifest.data_sets
    )
    for name, row in manifest.data_sets.items():
        assert row.name == name
        assert not name.startswith("simulated") or "simulated" in row.modality
    large = manifest.checkpoint("sam2_hiera_large")
    assert large.sha256 == "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b"
    assert large.config == "configs/sam2/sam2_hiera_l.yaml"


def test_checkpoints_without_a_hash_say_unverified():
    for row in load_manifest(SHIPPED).checkpoints.values():
        assert row.sha256 or row.embedded or "unverified" in row.note


def test_rows_that_only_show_formats_are_not_measured():
    manifest = load_manifest(SHIPPED)
    names = ["example_soft_mask", "sample_ct_spleen", "example_ct_organs", "ct_spleen"]
    assert manifest.measured(names) == ["sample_ct_spleen", "ct_spleen"]


def test_own_data_set_needs_few_lines(tmp_path):
    manifest = load_manifest(SHIPPED, write(tmp_path, OWN))
    row = manifest.data_set("my_spleens")
    assert row.objects == {"spleen": [1]}
    assert row.access == "own"
    assert row.raw_folder == "my_spleens"


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("dimension: 3", "dimension: 4", 5, ["dimension", "2 or 3"]),
        ("modality: CT", "modalty: CT", 4, ["modalty", "known:", "modality"]),
        ("    title: My spleens\n", "", 2, ["title", "required"]),
        ("policy: window", "policy: windw", 7, ["policy", "percentile"]),
        ("high: 240", "high: -240", 7, ["below"]),
        ("high: 240", "hi: 240", 7, ["hi", "known:", "high"]),
        ("name: nifti_pairs", "name: nifti_pair", 8, ["nifti_pairs", "msd"]),
        ("name: nifti_pairs", "name: nifti_pairs, image: x", 8, ["image", "known:", "images"]),
        ("spleen: [1]", "spleen: [0]", 6, ["spleen", "greater"]),
        ("name: nifti_pairs", "name: nifti_pairs, images: '../{case}.nii'", 8, ["below the folder"]),
        ("modality: CT", "modality: CT\n    modality: MR", 5, ["again", "line 4"]),
        ("title: My spleens", "title: [My", 4, ["no YAML"]),
        ("title: My spleens", "title: My spleens\n    access: login", 2, ["steps"]),
    ],
)
def test_mistakes_name_line_field_and_remedy(tmp_path, old, new, line, words):
    path = write(tmp_path, OWN.replace(old, new))
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    message = str(caught.value)
    assert f"own.yaml, line {line}" in message, message
    for word in words:
        assert word in message, message


PAIRS = "layout: {name: nifti_pairs}"
BOTH = "images: '{patient}/{case}.nii', masks: '{patient}/{case}_m.nii'"
LISTED = "layout: {name: listed, cases: [{case_id: a, image: a, mask: b, patient: p}]}"
TWO = "all say which cases are of one patient; keep one rule"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            f"{PAIRS}\n    patient: '^(p.)'\n    patient_table: who.csv",
            f"`patient` and `patient_table` {TWO}",
        ),
        (f"layout: {{name: nifti_pairs, {BOTH}}}\n    patient: '^(p.)'", f"`patient` and the layout {TWO}"),
        (
            f"layout: {{name: nifti_pairs, {BOTH}}}\n    patient_table: who.csv",
            f"`patient_table` and the layout {TWO}",
        ),
        (
            LISTED + "\n    patient: '(.)'",
            f"`patient` and the layout {TWO}",
        ),
        (f"{PAIRS}\n    patient: '^(p.)'\n    patient: '^(q.)'", "'patient' stands here again"),
        (f"{PAIRS}\n    patient: '^p'", "`patient` has 0 groups"),
        (f"{PAIRS}\n    patient: '^(p)(.)'", "`patient` has 2 groups"),
        (f"{PAIRS}\n    patient: '^(p'", "`patient` is no regular expression"),
        (f"{PAIRS}\n    patient_table: ../who.csv", "below the folder"),
        (
            "layout: {name: nifti_pairs, images: '{patient}/{case}.nii', masks: '{case}.nii'}",
            "`{patient}` must stand in both patterns",
        ),
        ("layout: {name: nifti_pairs, images: '{patient}.nii', masks: '{patient}_m.nii'}", "images"),
        ("layout: {name: listed, cases: [{case_id: a, image: a, mask: b, patient: ' '}]}", "patient"),
        (f"{PAIRS}\n    colour: red", "'grey' or 'rgb'"),
        (f"{PAIRS}\n    seen_by: [medsam]", "seen_by"),
        (f"{PAIRS}\n    seen_by: {{medsam: ''}}", "seen_by.medsam"),
    ],
)
def test_rules_for_patients_that_contradict_or_cannot_work_are_named(tmp_path, rule, words):
    with pytest.raises(ManifestError) as caught:
        load_manifest(write(tmp_path, OWN.replace(PAIRS, rule)))
    assert words in str(caught.value) and "own.yaml, line" in str(caught.value)


@pytest.mark.parametrize(
    "rule",
    [
        f"{PAIRS}\n    patient: '^(p[0-9]+)_'",
        f"{PAIRS}\n    patient_table: who.csv",
        f"layout: {{name: nifti_pairs, {BOTH}}}",
        LISTED,
    ],
)
def test_one_rule_for_patients_is_enough(tmp_path, rule):
    read = load_manifest(write(tmp_path, OWN.replace(PAIRS, rule))).data_set("my_spleens")
    assert read.layout.name in rule and (read.patient_table == "who.csv") == ("who.csv" in rule)
    jsonschema.validate(yaml.safe_load(OWN.replace(PAIRS, rule)), schema())


def test_every_mistake_is_listed(tmp_path):
    path = write(tmp_path, OWN.replace("dimension: 3", "dimension: 4").replace("title: My", "tile: My"))
    with pytest.raises(ManifestError, match="3 mistake"):
        load_manifest(path)


def test_name_given_twice_and_unknown_name(tmp_path):
    with pytest.raises(ManifestError, match="already in another file"):
        load_manifest(write(tmp_path, OWN), write(tmp_path, OWN))
    with pytest.raises(ManifestError, match="Known: my_spleens"):
        load_manifest(write(tmp_path, OWN)).data_set("your_spleens")


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(ManifestError, match="cannot be read"):
        load_manifest(tmp_path / "none.yaml")
    with pytest.raises(ManifestError, match="is empty"):
        load_manifest(write(tmp_path, ""))
    with pytest.raises(ManifestError, match="holds no rows"):
        load_manifest(write(tmp_path, "data_sets: {}"))


def test_shipped_schema_is_that_of_the_models():
    shipped = SHIPPED.with_name("data_manifest.schema.json").read_text(encoding="utf-8")
    assert shipped == schema_text(), "run `make schema`"


def test_schema_accepts_the_shipped_manifest_and_an_own_data_set():
    text = SHIPPED.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=data_manifest.schema.json\n")
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(yaml.safe_load(text), schema())
    jsonschema.validate(yaml.safe_load(OWN), schema())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("dimension: 3", "dimension: 4"),
        ("modality: CT", "modalty: CT"),
        ("policy: window", "policy: windw"),
        ("name: nifti_pairs", "name: nifti_pair"),
        ("spleen: [1]", "spleen: [0]"),
        ("title: My spleens", "name: mine"),
    ],
)
def test_schema_refuses_mistakes(old, new):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(OWN.replace(old, new)), schema())


def test_schema_explains_the_fields():
    properties = schema()["$defs"]["DataSet"]["properties"]
    for field in ("patient", "patient_table", "colour", "seen_by"):
        assert len(properties[field]["description"]) > 40, field
    assert "8 bits" in schema()["$defs"]["Intensity"]["properties"]["policy"]["description"]
    assert "medical" in schema()["$defs"]["Checkpoint"]["properties"]["medical_images"]["description"]
    assert "name" not in properties
    assert properties["objects"]["description"].startswith("label values")
    assert "Attributes" not in schema()["$defs"]["DataSet"]["description"]
    assert "Hounsfield" in schema()["$defs"]["Intensity"]["properties"]["policy"]["description"]
