"""The study file: what is refused, with which words; where a run lies; comparisons that stand once."""

from pathlib import Path

import pytest
import yaml
from helpers.projects import EVALUATE_2D, ROOT, as_project, write_notebook, write_study

from medsam_nb.errors import StudyError
from medsam_nb.statistics.declarations import declare
from medsam_nb.workbook import study
from medsam_nb.workbook.resolve import resolve_parameters

STUDIES = ("demo", "my_data", "paper_v1", "samples")


@pytest.fixture
def project(tmp_path):
    with as_project(tmp_path / "workbook") as folder:
        write_notebook(folder, "00_first", EVALUATE_2D)
        yield folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"caveat": ["x"]}, "line 6.*'caveat' is no known field.*'caveats'"),
        ({"title": None}, "'title'"),
        ({"title": 7}, "line 2.*'title'.*string"),
        ({"notebooks": {}}, "line 4.*notebooks.*at least 1"),
        ({"notebooks": ["00_first"]}, "line 4.*notebooks.*dict"),
        ({"notebooks": {"00_first": 3}}, "line 5.*00_first.*dict"),
        ({"parameters": [1]}, "parameters.*dict"),
        ({"caveats": "one"}, "caveats.*list"),
        ({"comparisons": [3]}, "comparisons.0"),
        ({"style": {"colour": {}}}, "line 7.*'colour' is no known field of style.*'colours'"),
        ({"style": {"order": {"model": []}}}, "'model' is no known field of style.order.*'models'"),
        ({"style": {"colours": {"one_box": "blue"}}}, "style.colours.one_box.*Known fields: names"),
        ({"style": {"designs": {"prompt": "one_bx"}}}, "line 7.*style.designs.*'one_bx'.*mean 'one_box'"),
        ({"style": {"designs": ["a/b"]}}, "style.designs.*'a/b' is no design"),
        ({"style": {"prompts": ["mask"]}}, "style.prompts.*'mask' is no known prompt in 2D"),
    ],
)
def test_fields_are_checked_and_the_line_is_named(project, changes, message):
    with pytest.raises(StudyError, match=message):
        study.load_study(write_study(project, **changes))


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a\nb", "a\x7fb", " a", "x" * 101, 5]
)
def test_a_name_is_one_safe_part_of_a_path(project, name):
    with pytest.raises(StudyError, match="name"):
        study.load_study(write_study(project, name=name))


@pytest.mark.parametrize("name", ["demo", "Leber (CT) 2024", "größe", "肝臓", "x" * 100])
def test_names_of_all_languages_are_names(project, name):
    loaded = study.load_study(write_study(project, name=name))
    assert study.run_folder(loaded) == study.run_folder(name) == project / "runs" / name


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "mapping|empty"),
        (b"- 1\n- 2\n", "mapping"),
        (b"name: [", "line 1.*is no YAML"),
        (b"name: a\nname: b\n", "line 2.*name.*first in line 1|line 2.*twice"),
        (b"name: a\nquestion: \xe4\n", "line 2.*UTF-8"),
        ("name: a".encode("utf-16"), "UTF-8|UTF-16"),
        (b"name: a\0b", "bad.yaml"),
        (b"\x7fELF\x02\x01\x01" + bytes(range(256)), "bad.yaml"),
        (BOMB.encode(), "values"),
        (b"name: &a [*a]\n", "alias"),
        (b"name: " + b"[" * 50_000, "levels|inside one another"),
        (b"? [1]\n: 2\n", "key"),
        (b"name: !!python/object/apply:os.system [id]\n", "line 1"),
        (b"seed: " + b"9" * 9000, "number|digits"),
        (b"seed: 0x" + b"F" * 9000, "number|digits"),
        (b"name: 2024-13-45\n", "bad.yaml"),
        (b"x" * (5 << 20), "bytes|MiB|larger"),
    ],
)
def test_what_is_no_study_is_refused_by_name(project, content, message):
    path = project / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(StudyError, match="(?s)bad.yaml.*") as caught:
        study.load_study(path)
    assert caught.match(message)


def test_a_missing_study_or_a_folder_is_named(project):
    with pytest.raises(StudyError, match="missing.yaml.*No such file"):
        study.load_study(project / "missing.yaml")
    with pytest.raises(StudyError, match="studies"):
        study.load_study(project / "studies")


def test_a_study_is_found_from_here_and_from_the_workbook(project, monkeypatch, tmp_path):
    path = write_study(project)
    assert study.find_study(Path("studies/small.yaml")) == path
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    root = study.project_root()  # as of now; from elsewhere it would be that of this checkout
    monkeypatch.setattr(study, "project_root", lambda: root)
    monkeypatch.chdir(elsewhere)
    assert study.find_study(Path("studies/small.yaml")) == path
    own = elsewhere / "own.yaml"
    own.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    assert study.find_study(Path("own.yaml")) == own
    assert study.below_root(path) == "studies/small.yaml" and study.below_root(own) == str(own)
    with pytest.raises(StudyError, match="smal.yaml.*small.yaml"):
        study.find_study(Path("studies/smal.yaml"))


def test_defaults_are_values_and_carry_their_help(project):
    assert study.defaults("00_first")["prompts"] == ["one_point", "one_box"]
    assert study.declared_parameters("00_first")["seed"]["help"] == "of every random choice"
    write_notebook(project, "01_odd", "when = now()  # a call\n")
    with pytest.raises(StudyError, match="01_odd, parameter when.*no plain value"):
        study.defaults("01_odd")
    with pytest.raises(StudyError, match="'00_frist'.*'00_first'"):
        study.notebook_path("00_frist")
    with pytest.raises(StudyError, match="no known notebook"):
        study.notebook_path("../notebooks/00_first")


def test_comparisons_of_all_studies_stand_once():
    """Written out, they are those that the demonstration declared when each study wrote its own."""
    texts = [(ROOT / "studies" / f"{name}.yaml").read_text(encoding="utf-8") for name in STUDIES]
    assert all("one_box, b: one_point" not in text.split("comparisons:")[1] for text in texts)
    demo = {
        item["name"]: declare(item) for item in study.load_study(ROOT / "studies" / "demo.yaml").comparisons
    }
    assert len(demo) == 13 and {comparison.family for comparison in demo.values()} == {"2D", "3D"}
    models = demo["SAM 2 against SAM (miniature_sam2, miniature_sam)"]
    assert models.a == {"model": "miniature_sam2"} and models.b == {"model": "miniature_sam"}
    propagated = demo["3D propagation against 2D prompting, same slices"]
    assert propagated.where == {"model": "miniature_sam2", "prompt": "one_box"}
    assert propagated.slices == "propagated"


def test_the_roles_are_the_studys_or_those_that_are_given():
    path = ROOT / "studies" / "paper_v1.yaml"
    names = [item["name"] for item in study.load_study(path).comparisons]
    assert "SAM 2 against SAM (sam2_hiera_large, sam_vit_h)" in names
    names = [item["name"] for item in study.load_study(path, {"sam": "medsam_vit_b"}).comparisons]
    assert "SAM 2 against SAM (sam2_hiera_large, medsam_vit_b)" in names


def test_a_set_is_included_by_name_beside_own_comparisons(project):
    own = {"name": "own", "vary": "prompt", "a": "one_box", "b": "one_point"}
    other = {"include": "sam2_against_sam", "sam2": "A", "sam": "B"}
    path = write_study(project, comparisons=["standard_2d", other, own], parameters={"sam2": "C"})
    found = study.load_study(path).comparisons
    assert [item["name"] for item in found][4:] == [
        "SAM 2 against SAM (A, B)", "SAM 2 equals SAM within 0.05 (A, B)", "own",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("comparisons", "message"),
    [
        (["standrad_2d"], "small.yaml.*'standrad_2d' is no known set.*'standard_2d'"),
        ([{"include": 7}], "7 is no known set"),
        (["sam2_against_sam"], "nothing says which model plays sam2.*parameters: {sam2: NAME}"),
        ([{"include": "standard_3d", "sma2": "A"}], "'sma2' is no known role.*'sam2'"),
        ([{"name": "x", "a": "$medsam"}], "'medsam' is no known role"),
        ([{"name": "5 $"}], r"has a \$ that names no role"),
    ],
)
def test_sets_and_roles_that_are_not_known_are_named(project, comparisons, message):
    with pytest.raises(StudyError, match=message):
        study.load_study(write_study(project, comparisons=comparisons))


def test_a_damaged_collection_of_sets_is_named(project):
    (project / "studies" / "comparisons.yaml").write_text(yaml.safe_dump({"one": "two"}), encoding="utf-8")
    with pytest.raises(StudyError, match="comparisons.yaml.*no collection of sets"):
        study.load_study(write_study(project, comparisons=["one"]))


@pytest.mark.parametrize("name", STUDIES)
def test_every_committed_study_can_be_done(name):
    path = ROOT / "studies" / f"{name}.yaml"
    given = resolve_parameters(study.load_study(path), path)
    assert given and all(values.get("run_dir") == f"runs/{name}" for values in given.values())


def test_the_order_of_data_sets_is_that_of_the_whole_study(project):
    notebooks = {"00_first": {"data_sets": ["b", "a"]}, "00_second": None}
    one = study.Study(
        name="x", title="X", question="?", parameters={"data_sets": ["c", "b"]}, notebooks=notebooks
    )
    assert study.data_sets_of(one) == ["c", "b", "a"]
    assert study.data_sets_of(one, {"data_sets": ["a"]}) == ["a"]
