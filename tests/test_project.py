"""What keeps the project true to itself: environments agree, the map is that of the folders."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

from medsam_nb.manifest.reading import load_manifest
from medsam_nb.manifest.schema import state_table
from medsam_nb.statistics.declarations import declare
from medsam_nb.workbook import resolve, study

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"torch": "pytorch"}


def requirement(text):
    name, bound = re.fullmatch(r"([A-Za-z0-9_.-]+)\s*([=<>~!].*)?", text.strip()).groups()
    return CONDA_NAMES.get(name, name).lower(), bound


def test_environment_yml_and_pyproject_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    entries = [entry for entry in conda if isinstance(entry, str)] + conda[-1]["pip"]
    declared = dict(map(requirement, project["dependencies"]))
    declared |= {"python": project["requires-python"], "pip": None}
    assert dict(map(requirement, entries)) == declared


def test_every_dependency_is_pinned_with_hashes_and_without_a_host():
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = {match.lower() for match in re.findall(r"^([A-Za-z0-9_.-]+)==", pins, re.M)}
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    names = {re.match(r"[A-Za-z0-9_.-]+", text)[0].lower() for text in wanted}
    assert names <= pinned
    assert len(re.findall(r"^[A-Za-z0-9_.-]+==", pins, re.M)) <= pins.count("--hash=sha256:")
    assert "://" not in pins


def tracked_files():
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout, so which files belong to the project is not known")
    return [line for line in listed.stdout.splitlines() if (ROOT / line).exists()]


def folder_map():
    """Return the folders of CONTRIBUTING's map, as paths."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = re.search(r"```text\n(.*?)```", text, re.S)[1]
    found, above = [], ""
    for line in block.splitlines():
        indent, name = re.match(r"( *)(\S+)/ ", line).groups()
        above = above if indent else name
        found.append(f"{above}/{name}" if indent else name)
    return found


def test_the_folder_map_is_that_of_the_folders():
    folders = {Path(name).parts[:-1] for name in tracked_files()}
    top = {parts[0] for parts in folders if parts and not parts[0].startswith(".")}
    inside = {"/".join(parts[:2]) for parts in folders if len(parts) > 1 and parts[0] == "medsam_nb"}
    assert sorted(folder_map()) == sorted(top | inside)


def test_the_readme_is_short_and_its_links_lead_somewhere():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
    for page in pages:
        for link in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_docs_name_files_that_exist():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        for name in re.findall(
            r"`((?:medsam_nb|studies|training|tests|benchmarks)/[\w./]+\.\w+)`", page.read_text("utf-8")
        ):
            assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_the_docs_state_what_the_manifest_says_of_every_data_set():
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    table = state_table(load_manifest(ROOT / "data_manifest.yaml"))
    assert table in page, "replace the table by what `medsam-nb data-sets` prints"


def test_the_root_of_the_package_stays_small():
    entries = [name for name in (ROOT / "medsam_nb").iterdir() if name.name != "__pycache__"]
    assert len(entries) <= 14


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_are_clean_and_cells_short(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    shown = [cell for cell in code if "parameters" not in cell.metadata.get("tags", [])]
    assert max(len(cell.source.splitlines()) for cell in shown) <= 20


@pytest.mark.parametrize("name", study.notebooks())
def test_fine_tuned_checkpoints_are_looked_for_where_a_notebook_is_told(name):
    code = [
        c.source
        for c in nbformat.read(study.notebook_path(name), as_version=4).cells
        if c.cell_type == "code"
    ]
    (opened,) = [line for source in code for line in source.splitlines() if "workbook.open_run(" in line]
    declared = study.declared_parameters(name)
    assert ("weights_dir)" in opened) == ("weights_dir" in declared and "extra_manifest" in declared)


@pytest.mark.parametrize("name", study.notebooks())
def test_every_parameter_of_a_notebook_says_what_it_is(name):
    for parameter, entry in study.declared_parameters(name).items():
        assert entry["help"] and not entry["default"].startswith("("), parameter


@pytest.mark.parametrize(
    "name", ["demo", "paper_v1", "samples", "open_questions", "open_questions_samples", "fine_tune_samples"]
)
def test_every_study_names_known_parameters_data_sets_and_models(name):
    path = ROOT / "studies" / f"{name}.yaml"
    resolved = resolve.resolve_parameters(study.load_study(path), path)
    rows = load_manifest(ROOT / "data_manifest.yaml")
    for notebook, given in resolved.items():
        # what a study does not give is the notebook's default, which is the demo's
        declared = study.declared_parameters(notebook)
        given = {key: ast.literal_eval(entry["default"]) for key, entry in declared.items()} | given
        roles = {given[role] for role in ("sam2", "sam", "model", "rival") if role in given}
        assert roles <= set(resolved.get("00_check_environment", given)["models"] if roles else ())
        for data_set in given.get("data_sets", []) if given.get("objects") else []:
            assert set(given["objects"]) & set(rows.data_set(data_set).objects), data_set
        assert set(given.get("data_sets", [])) <= set(rows.data_sets)
        assert set(given.get("models", [])) <= set(rows.checkpoints)
    assert all(declare(item) for item in study.load_study(path).comparisons)


def test_notebooks_opened_by_hand_do_what_the_demo_study_does():
    path = ROOT / "studies" / "demo.yaml"
    for name, given in resolve.resolve_parameters(study.load_study(path), Path("studies/demo.yaml")).items():
        declared = study.declared_parameters(name)
        assert given == {key: ast.literal_eval(declared[key]["default"]) for key in given}, name
