"""A study's work without its notebooks: the same units, in shares, under locks; and what it will take."""

import re
from dataclasses import replace

import nbformat
import pandas as pd
import pytest
from helpers.projects import ROOT

from medsam_nb import cli
from medsam_nb.data.locks import locked
from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders
from medsam_nb.errors import StudyError
from medsam_nb.evaluation import units
from medsam_nb.evaluation.store import Store
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.protocol.designs import ALL_DESIGNS, PAPER_V1_DESIGNS, Design
from medsam_nb.protocol.options import PropagationOptions
from medsam_nb.provenance import ROWS, code_sha256
from medsam_nb.workbook import planning
from medsam_nb.workbook.report import read_provenance
from medsam_nb.workbook.shares import CLAIMS, run_share, share
from medsam_nb.workbook.work import TAG, work_of_study

MANIFEST = load_manifest(ROOT / "data_manifest.yaml")
DEMO = ROOT / "runs" / "demo"


def planned(task, data_set, place, **parameters):
    prepare(MANIFEST.data_set(data_set), place, place, progress=False)
    given = {"weights_dir": ROOT / "weights", "seed": 1, "device": "cpu"} | parameters
    return units.plan_units(
        task, case_folders(place, data_set), [MANIFEST.checkpoint("miniature_sam2")], **given
    )


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Three units of a second."""
    place = tmp_path_factory.mktemp("quick")
    return planned("2d", "simulated_xray", place, prompts=["one_point"], protocol="corrected")


def statuses(ended):
    return [status for _, status, _ in ended]


def test_shares_hold_every_unit_once(quick):
    for parts in (1, 2, 3, 5):
        held = [unit.key.digest for part in range(parts) for unit in share(quick, part + 1, parts)]
        assert sorted(held) == sorted(unit.key.digest for unit in quick)


def test_shares_give_the_table_of_one_run(quick, tmp_path):
    keys = [unit.key for unit in quick]
    units.run_units(quick, Store(tmp_path / "whole"), workers=0)
    store = Store(tmp_path / "shares")
    for part in (3, 1, 2):
        assert statuses(run_share(share(quick, part, 3), store, workers=part % 2)) == ["computed"]
    assert statuses(run_share(quick, store, workers=0)) == ["stored"] * 3
    pd.testing.assert_frame_equal(store.read(keys), Store(tmp_path / "whole").read(keys))


def test_a_unit_that_another_job_computes_is_left_to_it(quick, tmp_path):
    store, first = Store(tmp_path), quick[0]
    with locked(tmp_path / CLAIMS / f"{first.key.digest}.lock", "medsam-nb units"):
        ended = {unit.key: (status, error) for unit, status, error in run_share(quick, store, workers=1)}
    assert ended[first.key][0] == "elsewhere" and "computed by process" in ended[first.key][1]
    assert sorted(status for status, _ in ended.values()) == ["computed", "computed", "elsewhere"]
    assert statuses(run_share(quick, store, workers=0)).count("computed") == 1  # the lock is free again


def test_a_unit_that_fails_costs_no_other(quick, tmp_path):
    broken = replace(quick[0], case_folder=tmp_path / "nowhere")
    store = Store(tmp_path / "rows")
    ended = {unit.key: (status, error) for unit, status, error in run_share([broken, *quick[1:]], store, 1)}
    assert ended[broken.key][0] == "failed" and "nowhere" in ended[broken.key][1]
    assert len(units.finished(quick, store)) == 2


def test_the_longest_units_are_computed_first(tmp_path):
    volumes = planned("3d", "simulated_ct", tmp_path, designs=PAPER_V1_DESIGNS, objects=["organ"])
    lengths = [units.slices_to_do(unit) for unit in units.longest_first(volumes)]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] > lengths[-1] > 0
    every = planned("3d", "simulated_ct", tmp_path, designs=PAPER_V1_DESIGNS)
    assert units.slices_to_do(every[0]) > units.slices_to_do(volumes[0])


def test_the_work_of_a_volume_is_counted_as_the_engine_does_it(tmp_path):
    """Bounds by hand: an object on slices a to b, prompted on its centre, carried to both ends."""
    one = Design("centre_slice", "one_box", "bidirectional", "most_confident_mask")
    both = (one, replace(one, mask_choice="first_mask"))
    (unit, *_), (forked, *_), (all_of_them, *_) = (
        planned(
            "3d", "simulated_ct", tmp_path, designs=designs, objects=["organ"], options=PropagationOptions()
        )
        for designs in ((one,), both, ALL_DESIGNS)
    )
    slices = units.slices_to_do(unit)
    assert planning.distinct_work(unit) == (slices, slices - 1, slices - 1)
    assert planning.distinct_work(forked) == (slices, slices - 1, 2 * (slices - 1))
    encodes, least, most = planning.distinct_work(all_of_them)
    assert slices < encodes and 2 * least == most


def test_a_plan_measures_one_unit_and_says_what_is_left(quick, tmp_path):
    store = Store(tmp_path)
    measured = []

    def sample(unit):
        measured.append(unit)
        list(run_share([unit], store, workers=0))

    (part,) = planning.parts({"02_evaluate_2d": quick}, store, sample)
    assert len(measured) == 1 and part.stored == 1 and len(part.seconds) == 2 and min(part.seconds) > 0
    said = " ".join(planning.sentences([part], store, workers=2))
    assert "3 cases, 3 units of work, 1 of them stored. Left on this machine: about" in said
    assert "Memory: a worker has needed up to" in said and "GB are free" in said
    assert "02_evaluate_2d, 2D, miniature_sam2: 3 encoded slices." in said  # one of each image
    assert planning.table([part]).iloc[0]["units"] == 3


def test_a_plan_of_units_that_fail_says_that_nothing_is_known(quick, tmp_path):
    broken = [replace(unit, case_folder=tmp_path / "nowhere") for unit in quick]
    found = list(planning.parts({"02": broken}, Store(tmp_path / "rows"), lambda unit: None))
    assert (
        "is not known: a unit or training failed of 02 (miniature_sam2)"
        in planning.sentences(found, Store(tmp_path), 2)[1]
    )
    half = planning.Part("02", "2d", "m", [quick[0], *broken[1:]], 0, [], float("nan"))
    said = planning.sentences([half], Store(tmp_path), 2)
    assert "02, 2D, m: 1 encoded slices; 2 units whose case cannot be read not counted." in said


def outdated():
    """Return why the finished demonstration cannot be compared with; "" if it can."""
    if not (DEMO / "index.html").is_file():
        return "no finished demonstration: run `make reproduce`"
    of_code = {sha for record in read_provenance(DEMO).values() for sha in record.get("code_sha256", [])}
    return (
        "" if of_code == {code_sha256(*ROWS)} else "the demonstration is of other code: run `make reproduce`"
    )


@pytest.mark.skipif(bool(outdated()), reason=outdated())
def test_the_tagged_cells_plan_what_the_notebooks_have_computed():
    work = work_of_study(ROOT / "studies" / "demo.yaml")
    assert set(work.units) == {"02_evaluate_2d", "03_propagate_3d", "11_correct_masks"}
    for name, planned_units in work.units.items():
        assert planned_units and all(work.store.has(unit.key) for unit in planned_units), name


def test_every_cell_that_computes_is_one_of_those_that_are_planned():
    found = 0
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and re.search(r"\brun\.evaluate\(|\btuning\.train\(", cell.source):
                assert TAG in cell.metadata.get("tags", []), f"{path.name}: {cell.source}"
                found += 1
    assert found >= 11


@pytest.mark.parametrize("part", ["0/3", "4/3", "one", "1"])
def test_what_is_no_part_is_named(part):
    with pytest.raises(StudyError, match=f"--part {part}: is no part. Write, for example"):
        cli.part_of(part)
