"""Every value of a study is checked before its first notebook starts: what is refused, and in which words."""

import hashlib
import math

import pytest
import yaml
from helpers.projects import (
    EVALUATE_2D,
    PROPAGATE_3D,
    STATISTICS,
    as_project,
    write_notebook,
    write_study,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from medsam_nb.errors import CheckpointError, ManifestError, StudyError, WorkbookError
from medsam_nb.workbook import comparisons, resolve
from medsam_nb.workbook.study import load_study

OWN_WEIGHTS = b"weights"


def defaults_of(cell):
    """Return the names that a parameters cell assigns."""
    return [line.split(" = ")[0] for line in cell.splitlines()]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    with as_project(tmp_path_factory.mktemp("resolve") / "workbook") as folder:
        write_notebook(folder, "02_evaluate_2d", EVALUATE_2D)
        write_notebook(folder, "03_propagate_3d", PROPAGATE_3D)
        write_notebook(folder, "04_test_statistics", STATISTICS)
        row = {
            "family": "sam2", "config": "configs/sam2.1/sam2.1_hiera_t.yaml", "file": "own.pt",
            "url": "https://example.org/own.pt", "citation": "", "licence": "own",
            "sha256": hashlib.sha256(OWN_WEIGHTS).hexdigest(),
        }  # fmt: skip
        text = yaml.safe_dump({"checkpoints": {"own_sam2": row}})
        (folder / "studies" / "own_manifest.yaml").write_text(text, encoding="utf-8")
        yield folder


def resolved(project, overrides=None, **changes):
    path = write_study(project, **changes)
    return resolve.resolve_parameters(load_study(path), path, overrides)


def test_parameters_of_the_study_then_the_notebook_then_the_command(project):
    notebooks = {"02_evaluate_2d": {"workers": 3, "seed": 2}, "03_propagate_3d": None}
    given = resolved(project, {"seed": 4}, notebooks=notebooks, parameters={"workers": 1, "seed": 1})
    assert given["02_evaluate_2d"] == {"run_dir": "runs/small", "workers": 3, "seed": 4}
    assert given["03_propagate_3d"] == {"run_dir": "runs/small", "workers": 1, "seed": 4}


def test_the_run_gives_its_folder_and_its_study_file(project):
    given = resolved(project, notebooks={"04_test_statistics": None})
    assert given == {"04_test_statistics": {"run_dir": "runs/small", "study_file": "studies/small.yaml"}}


def test_parameters_of_a_notebook_that_is_left_out_may_stay(project):
    given = resolved(
        project, {"designs": "paper_v1"}, parameters={"mask_scope": "all"}, notebooks={"02_evaluate_2d": None}
    )
    assert given == {"02_evaluate_2d": {"run_dir": "runs/small"}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": {"sead": 1}}, "small.yaml: 'sead' is no known parameter.*'seed'"),
        (
            {"notebooks": {"02_evaluate_2d": {"mask_scope": "all"}}},
            "02_evaluate_2d: 'mask_scope' is no known parameter",
        ),
        ({"notebooks": {"02_evaluate2d": None}}, "'02_evaluate2d' is no known notebook.*'02_evaluate_2d'"),
        ({"notebooks": {"../x": None}}, "'../x' is no known notebook"),
        ({"parameters": {"study_file": "a.yaml"}}, "study_file.*filled in"),
        (
            {"parameters": {"run_dir": "runs/demo"}},
            "run_dir: is 'runs/demo', but the study's name is 'small'.*runs/small",
        ),
        ({"parameters": {"run_dir": "../small"}}, "run_dir"),
        ({"name": "demo", "parameters": {"run_dir": "runs/small"}}, "'runs/small', but.*'demo'.*runs/demo"),
    ],
)
def test_what_no_notebook_knows_is_refused(project, changes, message):
    with pytest.raises(StudyError, match=message):
        resolved(project, **changes)


def test_the_command_is_named_where_it_is_wrong(project):
    with pytest.raises(StudyError, match="--set: 'desings' is no known parameter.*'designs'"):
        resolved(project, {"desings": "all"})


# A parameter, a wrong value, and what the message says besides the parameter's name.
WRONG = [
    ("models", "miniature_sam2", r"the word 'miniature_sam2', not a list.*\[miniature_sam2\]"),
    ("models", [], "empty list.*at least one"),
    ("models", ["sam2_hiera_huge"], "'sam2_hiera_huge'.*'sam2_hiera_large'"),
    ("models", ["miniature_sam2", "miniature_sam2"], "'miniature_sam2' twice"),
    ("models", [True], "holds true"),
    ("models", None, "is empty, not a list"),
    ("models", {"miniature_sam2": 1}, "not a list"),
    ("data_sets", ["ct_spleeen"], "'ct_spleeen'.*'ct_spleen'"),
    ("data_sets", [], "empty list"),
    ("data_sets", [" "], "holds the word ' '"),
    ("prompts", ["one_bx"], "'one_bx' is no known prompt in 2D.*'one_box'"),
    ("prompts", ["mask"], "'mask' is no known prompt in 2D"),
    ("prompts", "one_box", r"\[one_box\]"),
    ("prompts", [], "empty list"),
    ("objects", ["organn"], "'organn' is no known object.*'organ'"),
    ("objects", [1], "holds 1"),
    ("objects", None, "is empty"),
    ("seed", "abc", "the word 'abc', not a whole number"),
    ("seed", 1.5, "is 1.5, not a whole number"),
    ("seed", True, "is true, not a whole number"),
    ("seed", -1, "is -1.*0 to"),
    ("seed", 2**63, "0 to"),
    ("workers", -2, "is -2.*0 to 256"),
    ("workers", 10_000, "0 to 256"),
    ("workers", [2], "not a whole number"),
    ("features_gb", math.nan, "is nan.*Write a number"),
    ("features_gb", math.inf, "is inf"),
    ("features_gb", -1.0, "0 or more"),
    ("features_gb", "1e1", "the word '1e1', not a number"),
    ("features_gb", False, "is false, not a number"),
    ("download", "yes", "the word 'yes', not true or false"),
    ("download", 1, "is 1, not true or false"),
    ("protocol", "correctd", "'correctd' is no known protocol.*'corrected'"),
    ("protocol", "", "is empty"),
    ("protocol", True, "is true, not a word"),
    ("device", "gpu", "'gpu' is no known device.*cuda"),
    ("device", "cuda:x", "no device.*cuda:0"),
    ("device", "cpu:1", "no device"),
    ("dtype", "float16", "'float16' is no known arithmetic.*bfloat16"),
    ("extra_manifest", "../x.yaml", "leaves the workbook's folder"),
    ("prepared_dir", "../elsewhere", "leaves the workbook's folder.*absolute"),
    ("prepared_dir", "data/raw", "in one another"),
    ("prepared_dir", "data", "in one another"),
    ("designs", "papr_v1", "'papr_v1' is no known set of designs.*'paper_v1'"),
    ("designs", 64, "is 64"),
    ("designs", [], "is \\[\\]|empty list"),
    ("designs", [1], "is \\[1\\]"),
    ("designs", ["centre_slice/one_box"], "is no design"),
    ("designs", ["centre_slice/one_bx/bidirectional/first_mask"], "'one_bx' is no known prompt.*'one_box'"),
    ("designs", {"promt": "one_box"}, "'promt' is no known factor.*'prompt'"),
    ("designs", {"prompt": "one_bx"}, "'one_bx'.*'one_box'"),
    ("designs", {"prompt": 3}, "prompt"),
    ("designs", {"prompt": []}, "leaves no design"),
    ("mask_scope", "al", "'al' is no known mask scope.*'all'"),
    ("attention", "exakt", "'exakt'.*'exact'"),
    ("kernels", "compield", "'compield' is no known kind of kernels.*'compiled'"),
    ("branches_at_once", 0, "1 to 64"),
    ("frames", "vidio", "'vidio'.*'video'"),
    ("until", "end", "'end' is no known until.*volume_end"),
    ("volume_metrics", "overlaps", "'overlaps'.*'overlap'"),
    ("sam2", "miniature_sma2", "'miniature_sma2'.*'miniature_sam2'"),
    ("sam2", "sam2_hiera_large", "'sam2_hiera_large' is no known model that this study evaluates"),
    ("resamples", 0, "100 to"),
    ("failed_below", 1.5, "0 to 1"),
    ("shown_prompt", "box_per_component", "that this study evaluates"),
    ("shown_prompt", "box", "no known prompt"),
    ("shown_design", "centre_slice/one_box/bidirectional", "is no design"),
]  # fmt: skip


@pytest.mark.parametrize(("parameter", "value", "message"), WRONG)
def test_wrong_values_are_refused_wherever_they_are_given(project, parameter, value, message):
    ways = [{"changes": {"parameters": {parameter: value}}}, {"overrides": {parameter: value}}]
    for way, source in zip(ways, ("small.yaml, parameter", "--set, parameter"), strict=True):
        with pytest.raises(WorkbookError, match=f"(?s){source} {parameter}:.*{message}"):
            resolved(project, way.get("overrides"), **way.get("changes", {}))


def test_paths_with_control_characters_are_refused(project):
    with pytest.raises(WorkbookError, match="--set, parameter weights_dir:.*control characters"):
        resolved(project, {"weights_dir": "a\0b"})
    with pytest.raises(WorkbookError, match="small.yaml, line .*cannot be printed"):
        resolved(project, parameters={"weights_dir": "a\0b"})


RIGHT = [
    ("models", ["miniature_sam2"]), ("objects", []), ("objects", ["brain", "organ"]), ("seed", 0),
    ("workers", 0), ("features_gb", 1), ("download", True), ("device", "cpu"), ("device", "cuda:1"),
    ("dtype", "bfloat16"), ("prepared_dir", "/scratch/prepared"), ("designs", "paper_v1"),
    ("designs", ["centre_slice/one_box/bidirectional/first_mask"]),
    ("designs", {"prompt": "one_box", "direction": ["bidirectional"], "frame_choice": "centre_slice"}),
    ("volume_metrics", "all"), ("run_dir", "runs/small"), ("run_dir", "runs/./small"), ("extra_manifest", ""),
]  # fmt: skip


@pytest.mark.parametrize(("parameter", "value"), RIGHT)
def test_right_values_pass_as_they_are(project, parameter, value):
    given = resolved(project, {parameter: value}, notebooks={"02_evaluate_2d": None, "03_propagate_3d": None})
    assert value in [notebook[parameter] for notebook in given.values() if parameter in notebook]


@pytest.mark.parametrize(
    ("notebooks", "message"),
    [
        ({"03_propagate_3d": {"models": ["miniature_sam"]}}, "models: miniature_sam is of the family sam"),
        ({"03_propagate_3d": {"data_sets": ["simulated_xray"]}}, "simulated_xray holds single images"),
        (
            {"03_propagate_3d": {"kernels": "compiled", "attention": "blocked"}},
            "parameter kernels: 'compiled' and blocked attention exclude each other",
        ),
        ({"03_propagate_3d": {"objects": ["brain"]}}, "none of them is an object of simulated_ct"),
        (
            {"03_propagate_3d": {"designs": {"prompt": "mask"}}, "04_test_statistics": None},
            "notebook 04_test_statistics, parameter shown_design.*that this study evaluates",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused(project, notebooks, message):
    with pytest.raises(StudyError, match=message):
        resolved(project, notebooks=notebooks)


def test_a_style_that_would_draw_nothing_of_the_study_is_refused(project):
    style = {"designs": {"frame_choice": "first_slice"}, "prompts": ["one_box"]}
    assert resolved(project, style=style)
    with pytest.raises(StudyError, match="style.designs: this study evaluates none of these designs"):
        resolved(project, {"designs": {"frame_choice": "centre_slice"}}, style=style)
    with pytest.raises(StudyError, match="style.prompts: this study evaluates none of these prompts"):
        resolved(project, {"prompts": ["one_point"]}, style=style, notebooks={"02_evaluate_2d": {}})
    only = {"04_test_statistics": {}}  # what earlier runs evaluated is drawn
    assert resolved(project, notebooks=only, style=style)


def test_a_broken_manifest_is_named_with_its_line(project):
    (project / "broken.yaml").write_text("data_sets:\n  x: {title: 3}\n", encoding="utf-8")
    with pytest.raises(ManifestError, match="broken.yaml, line 2"):
        resolved(project, {"extra_manifest": "broken.yaml"})
    with pytest.raises(ManifestError, match="nowhere.yaml"):
        resolved(project, {"manifest": "nowhere.yaml"})


def test_a_model_of_an_own_manifest_can_play_a_role(project):
    own = {"models": ["own_sam2"], "extra_manifest": "studies/own_manifest.yaml", "sam2": "own_sam2"}
    assert resolved(project, parameters=own)["04_test_statistics"]["sam2"] == "own_sam2"


# --- comparisons -------------------------------------------------------------------------------------------

BOX = {"name": "box", "task": "2d", "vary": "prompt", "a": "one_box", "b": "one_point"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": "one_bx"}, "comparison 'box': 'one_bx' is no known prompt.*'one_box'"),
        ({"a": "mask"}, "'mask' is no known prompt"),  # not in 2D
        ({"a": "one_point"}, "two sides are the same"),
        ({"a": []}, "prompt is"),
        ({"a": {"prompt": {"x": 1}}}, "prompt is"),
        ({"vary": "promt"}, "unknown columns promt|'promt'.*'prompt'"),
        ({"vary": "value"}, "'value' is no known column"),
        ({"vary": 3}, "vary is 3"),
        ({"task": "4d"}, "'4d' is no known task.*2d"),
        ({"where": {"mask_choise": "first_mask"}}, "mask_choise"),
        ({"where": {"mask_choice": "frist_mask"}}, "'frist_mask'.*'first_mask'"),
        ({"where": {"frame_choice": "centre_slice"}}, "rows of 2D have no frame_choice"),
        ({"where": {"protocol": "new"}}, "'new' is no known protocol"),
        ({"where": "first_mask"}, "where is 'first_mask'"),
        ({"where": {"model": "sam_vit_h"}}, "'sam_vit_h' is no known model.*miniature_sam"),
        ({"where": {"data_set": "ct_spleen"}}, "'ct_spleen' is no known data set"),
        ({"where": {"object": "liver"}}, "'liver' is no known object"),
        ({"metric": "dise"}, "'dise' is no known metric"),
        ({"test": "equal"}, "'equal' is no known test"),
        ({"test": "equivalence", "alternative": "greater"}, "alternative.*Leave it out"),
        ({"margin": 0}, "margin is not positive"),
        ({"margin": "wide"}, "margin is 'wide'"),
        ({"margin": True}, "margin is True"),
        ({"margin": math.nan}, "margin is nan"),
        ({"unit": "slice"}, "'slice' is no known unit"),
        ({"slices": "some"}, "'some' is no known choice of slices"),
        ({"each": "score"}, "'score' is no known column"),
        ({"each": "modle"}, "modle"),
        ({"family": ""}, "family is ''"),
        ({"family": 2}, "family is 2"),
        ({"name": None}, "comparison 1.*name is None"),
        ({"colour": "red"}, "unknown entries colour"),
        ({"b": None}, "prompt is"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused(project, change, message):
    with pytest.raises(StudyError, match=f"small.yaml.*{message}"):
        resolved(project, comparisons=[BOX | change])


def test_comparisons_need_names_of_their_own(project):
    with pytest.raises(StudyError, match="comparison 'box': another one has the same name"):
        resolved(project, comparisons=[BOX, BOX])
    with pytest.raises(StudyError, match="'b' is missing"):
        resolved(project, comparisons=[{"name": "x", "a": {"prompt": "one_box"}}])


def test_comparisons_are_checked_with_the_roles_of_the_command(project):
    parameters = {"sam2": "miniature_sam2", "sam": "miniature_sam"}
    assert resolved(
        project, parameters=parameters, comparisons=["standard_2d", "sam2_against_sam", "standard_3d"]
    )
    with pytest.raises(StudyError, match="two sides are the same"):
        resolved(project, {"sam": "miniature_sam2"}, parameters=parameters, comparisons=["sam2_against_sam"])


# --- this machine ------------------------------------------------------------------------------------------


def test_missing_weights_are_found_before_the_first_notebook_with_the_command(project):
    given = resolved(project, notebooks={"02_evaluate_2d": {"models": ["sam_vit_h"]}})
    with pytest.raises(CheckpointError, match="not there.*`medsam-nb fetch sam_vit_h`"):
        resolve.require_ready(given)
    given = resolved(project, notebooks={"02_evaluate_2d": {"models": ["sam_vit_h", "sam2_hiera_large"]}})
    with pytest.raises(CheckpointError, match="(?s)of 2 models.*fetch sam_vit_h`.*fetch sam2_hiera_large`"):
        resolve.require_ready(given)


def test_wrong_and_right_weights_of_an_own_manifest(project):
    def ready(weights_dir, content=None):
        if content is not None:
            (project / weights_dir).mkdir()
            (project / weights_dir / "own.pt").write_bytes(content)
        own = {
            "models": ["own_sam2"],
            "extra_manifest": "studies/own_manifest.yaml",
            "weights_dir": weights_dir,
        }
        resolve.require_ready(resolved(project, notebooks={"02_evaluate_2d": own}))

    with pytest.raises(
        CheckpointError, match="fetch own_sam2 --manifest studies/own_manifest.yaml`.*weights/"
    ):
        ready("no_weights")
    with pytest.raises(CheckpointError, match="own.pt: its SHA-256 is.*delete it"):
        ready("other_weights", b"others")
    ready("own_weights", OWN_WEIGHTS)


def test_what_is_there_is_ready_and_a_device_that_is_not_is_named(project):
    resolve.require_ready(resolved(project))
    with pytest.raises(CheckpointError, match="device cuda:63.*auto or cpu"):
        resolve.require_ready(resolved(project, {"device": "cuda:63"}))


# --- whatever is written ------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        "all",
        "paper_v1",
        "one_box",
        "mask",
        "miniature_sam2",
        "mni152",
        "organ",
        "2d",
        "3d",
        "model",
        "prompt",
        "cuda:0",
    ]
) | st.text(max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.integers(), inner, max_size=3),
    max_leaves=6,
)
PARAMETERS = sorted({*defaults_of(EVALUATE_2D), *defaults_of(PROPAGATE_3D), *defaults_of(STATISTICS)})
FIELDS = [
    "name",
    "a",
    "b",
    "where",
    "family",
    "metric",
    "unit",
    "test",
    "alternative",
    "margin",
    "slices",
    "each",
]


def accepted_or_named(work):
    try:
        work()
    except WorkbookError as error:
        assert error.problem and error.remedy and str(error.item)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(name=st.sampled_from(PARAMETERS), value=VALUES)
def test_any_value_of_a_parameter_is_accepted_or_refused_in_words(project, name, value):
    path = write_study(project)
    accepted_or_named(lambda: resolve.resolve_parameters(load_study(path), path, {name: value}))


@settings(derandomize=True, deadline=None, max_examples=500)
@given(
    changes=st.dictionaries(
        st.sampled_from([*FIELDS, "vary", "task", "model", "include"]), VALUES, max_size=3
    )
)
def test_any_comparison_is_accepted_or_refused_in_words(project, changes):
    sets = project / "studies" / "comparisons.yaml"

    def work():
        entries = comparisons.expanded([BOX | changes], {"sam2": "a"}, sets, "study")
        comparisons.check(entries, "study", {"model": ["a"]})

    accepted_or_named(work)


def test_names_of_figures_are_those_of_the_manifests_that_notebooks_read(project):
    text = (project / "studies" / "own_manifest.yaml").read_text(encoding="utf-8")
    row = yaml.safe_load(text)["checkpoints"]["own_sam2"] | {"label": "Our SAM 2"}
    path = project / "studies" / "labelled.yaml"
    path.write_text(yaml.safe_dump({"checkpoints": {"labelled": row}}), encoding="utf-8")
    given = {"manifest": "data_manifest.yaml", "extra_manifest": "studies/labelled.yaml"}
    assert resolve.labels_of({"02_evaluate_2d": given}) == {"labelled": "Our SAM 2"}
    assert resolve.labels_of({"02_evaluate_2d": given | {"extra_manifest": ""}}) == {}
    path.write_text(yaml.safe_dump({"checkpoints": {"labelled": row | {"label": " "}}}), encoding="utf-8")
    with pytest.raises(WorkbookError, match="label"):
        resolve.labels_of({"02_evaluate_2d": given})
