"""What differs from running sam2 oneself: said of what a run did, and of nothing else."""

import dataclasses
from pathlib import Path

import pytest
from helpers.made_up import made_up_table

from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders
from medsam_nb.evaluation import units
from medsam_nb.evaluation.store import Store
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.protocol.designs import ALL_DESIGNS, Design
from medsam_nb.protocol.options import MemoryWindow, PropagationOptions
from medsam_nb.workbook.differences import differences_from_sam2
from medsam_nb.workbook.manuscript import write_manuscript
from medsam_nb.workbook.report import add_provenance

ROOT = Path(__file__).parents[2]


def said(hole_filling=(False,), dtype=("float32",), designs="all", **options):
    chosen = PropagationOptions(**options).as_dict()
    record = {"hole_filling": list(hole_filling), "dtype": list(dtype)}
    return " ".join(differences_from_sam2(record | {"parameters": {"designs": designs, "options": chosen}}))


# Each option with words that stand there only because of it.
OPTIONS = [
    ({"frames": "video"}, "as the package's loader of video folders does", True),
    ({"frames": "image"}, "as in 2D", True),
    ({"mask_scope": "prompted"}, "on prompted slices; on the others", True),
    ({"mask_scope": "all_with_boxes"}, "with a box or two points", True),
    ({"protocol": "released"}, "released scripts choose", True),
    ({"window": MemoryWindow(3, 2, 5)}, "at 3 memories (the released model at 7", True),
    ({"window": MemoryWindow(9, beyond="interpolated")}, "beyond the trained ones are interpolated", True),
    ({"window": MemoryWindow(remembered="truth")}, "remembered with their true masks", True),
    ({"window": MemoryWindow(remembered="nothing")}, "every slice was prompted", True),
    ({"attention": "blocked"}, "in blocks", True),
    ({"kernels": "compiled"}, "was compiled", True),
    ({"branches_at_once": 8}, "Up to 8 designs and objects", True),
    ({"hole_filling": [True]}, "holes", False),
    ({"hole_filling": [False, True]}, "in a part of the units", True),
    ({"hole_filling": []}, "(not recorded)", True),
    ({"dtype": ["bfloat16"]}, "issue 308", False),
    (
        {"designs": ["centre_slice/one_box/bidirectional/most_confident_mask"]},
        "first mask keep the first",
        False,
    ),
    ({"designs": ["centre_slice/one_box/bidirectional/first_mask"]}, "first mask keep the first", True),
]


@pytest.mark.parametrize(("options", "words", "there"), OPTIONS)
def test_every_option_changes_what_is_said(options, words, there):
    assert (words in said(**options)) == there
    if options != {"frames": "image"} and "first_mask" not in str(options):  # those are the default
        assert (words in said()) != there
    assert "JPEG" in said(**options)


def test_every_option_that_changes_a_prediction_is_said():
    """A new field of the options has to be said, or named here as one that changes no mask."""
    silent = {"until"}  # slices beyond the object's end are not read by those before
    covered = {name for options, _, _ in OPTIONS for name in options}
    assert {field.name for field in dataclasses.fields(PropagationOptions)} - silent <= covered
    assert said(until="volume_end") == said()


def test_records_of_real_runs_are_read(tmp_path):
    manifest = load_manifest(ROOT / "data_manifest.yaml")
    prepare(manifest.data_set("simulated_xray"), tmp_path, tmp_path, progress=False)
    folders = case_folders(tmp_path, "simulated_xray")[:1]
    store = Store(tmp_path / "rows")

    def record(task, **parameters):
        planned = units.plan_units(
            task, folders, [manifest.checkpoint("miniature_sam2")],
            weights_dir=tmp_path, seed=1, device="cpu", objects=["organ"], **parameters,
        )  # fmt: skip
        assert set(units.run_units(planned, store, workers=0).status) == {"computed"}
        return units.provenance(store, [unit.key for unit in planned], planned[0].plain_parameters)

    flat = differences_from_sam2(record("2d", prompts=["one_box"]))
    assert len(flat) == 2 and "the predictor's own transform" in flat[0]
    design = Design("centre_slice", "one_box", "bidirectional", "first_mask")
    deep = differences_from_sam2(record("3d", designs=[design], options=PropagationOptions(frames="video")))
    assert "as the package's loader of video folders does" in deep[0]
    assert any("not filled (in all units)" in sentence for sentence in deep)
    assert all(sentence.endswith(".") for sentence in [*flat, *deep])


def test_options_may_stand_beside_the_designs():
    record = {"parameters": {"designs": "all", "mask_scope": "prompted", "attention": "exact"}}
    assert any("on prompted slices" in sentence for sentence in differences_from_sam2(record))


def test_the_methods_text_says_it_for_each_task_that_was_run(tmp_path):
    designs = [f"{frame}/one_box/bidirectional/first_mask" for frame in ("centre_slice", "largest_slice")]
    base = {"checkpoints": {"miniature_sam2": "a" * 64}, "device": ["cpu"], "dtype": ["float32"], "seed": [1]}
    for notebook, parameters in (
        ("02_evaluate_2d", {"prompts": ["one_box"]}),
        ("03_propagate_3d", {"designs": designs, "options": {}}),
        ("11_correct_masks, 3D loops", {"loops": 3, "options": {"kernels": "compiled"}}),
    ):
        add_provenance(tmp_path, notebook, base | {"parameters": parameters})
    table = made_up_table(("MRI-Heart",), 2, designs=ALL_DESIGNS[:4])
    text, names = write_manuscript(tmp_path, table, "miniature_sam2")
    assert all((tmp_path / "tables" / name).is_file() for name in names) and "designs_3d.tex" in names
    flat, deep, loops = text.split("\n\n")[1:]
    assert flat.startswith("2D, what differs") and "several boxes are several calls" in flat
    assert deep.startswith("3D, what differs") and "Front to end means from slice 0" in deep
    assert loops.startswith("Corrections of volumes, what differs") and "stays prompted" in loops
    assert "was compiled" in loops and "Front to end" not in loops
    assert "miniature SAM 2 (SHA-256 aaaaaaaaaaaa)" in text
