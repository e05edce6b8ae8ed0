"""The explorer without a browser: actions, their text, files, and the widgets driven by events."""

import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from helpers import networks
from matplotlib.backend_bases import KeyEvent, MouseEvent
from PIL import Image

from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders, load_case
from medsam_nb.errors import InputError, StudyError
from medsam_nb.evaluation import reference
from medsam_nb.evaluation.rows import evaluate_2d, evaluate_3d
from medsam_nb.evaluation.single_slices import candidates
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.intensity import Intensity
from medsam_nb.protocol.metrics import dice
from medsam_nb.protocol.options import PropagationOptions
from medsam_nb.protocol.table import as_table
from medsam_nb.workbook.explorer_3d import view3d
from medsam_nb.workbook.explorer_compare import SideBySide
from medsam_nb.workbook.explorer_replay import log_text, read_log, replay
from medsam_nb.workbook.explorer_results import ResultsView, chosen_rows, pictures_of_row
from medsam_nb.workbook.explorer_scene import scene_of_case, scene_of_file
from medsam_nb.workbook.explorer_session import Session
from medsam_nb.workbook.explorer_view import Explorer

ROOT = Path(__file__).parents[2]
ROW = load_manifest(ROOT / "data_manifest.yaml").data_set("simulated_pet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared")
    prepare(ROW, root, root, progress=False)
    return case_folders(root, ROW.name)[0]


@pytest.fixture(scope="module")
def scene(folder):
    return scene_of_case(folder)


def session_of(scene, **options):
    return Session(networks.small_model(), scene, author="tester", **options)


def same_masks(one, other):
    assert one.state.masks.keys() == other.state.masks.keys() and one.state.masks
    for name, mask in one.state.masks.items():
        np.testing.assert_array_equal(mask, other.state.masks[name])


def worked(session):
    """A session with everything that can be done, and something taken back."""
    start = session.slice_index
    session.point(10, 12)
    session.point(30, 33, positive=False)
    session.box(5, 6, 40, 30)
    session.choose(0)
    session.undo()
    session.undo()
    session.redo()
    session.go(start + 2)
    session.point(20.4, 18.6)
    session.clear()
    session.point(20.4, 18.6)
    assert session.propagate()
    session.go(start + 4)
    session.point(8, 8, positive=False)
    assert session.propagate("front_to_end", "first_mask")
    return session


def test_a_session_is_a_text_that_gives_the_same_masks(scene, tmp_path):
    session = worked(session_of(scene, kept=tmp_path / "session.jsonl"))
    (tmp_path / "copy.jsonl").write_text(log_text(session))
    again = replay(session_of(scene), read_log(tmp_path / "copy.jsonl"))
    same_masks(again, session)
    restored = session_of(scene, kept=tmp_path / "session.jsonl")
    same_masks(restored, session)
    assert restored.place == session.place and restored.log == session.log
    restored.undo()
    with pytest.raises(AssertionError):
        same_masks(restored, session)


def test_a_session_of_another_image_is_refused(scene, tmp_path):
    kept = tmp_path / "session.jsonl"
    session = session_of(scene, kept=kept)
    session.point(10, 12)
    other = replace(scene, digest="0" * 64)
    with pytest.raises(InputError, match="another image"):
        session_of(other, kept=kept)


def test_undo_and_redo_go_back_and_forth(scene):
    session = session_of(scene)
    session.undo()  # nothing to take back
    session.point(10, 12)
    first = session.state
    session.box(5, 6, 40, 30)
    assert session.prompt.points == ((10, 12),) and session.prompt.box == (5, 6, 40, 30)
    session.undo()
    assert session.state is first
    session.redo()
    assert session.prompt.box == (5, 6, 40, 30)
    session.clear()
    assert session.prompt is None and session.mask() is None
    session.undo()
    session.point(3, 3, positive=False)
    assert session.prompt.point_labels == (1, 0)
    session.redo()  # an action after an undo leaves nothing to redo
    assert session.prompt.point_labels == (1, 0)


def test_what_is_seen_is_what_is_saved_until_a_prompt_changes(scene):
    session = worked(session_of(scene))
    saved = session.state.masks[session.object_name]
    for index in range(len(saved)):
        np.testing.assert_array_equal(session.mask(index), saved[index])
    assert len(session.state.prompts) == 3 and not session.state.chosen
    session.choose(1)
    np.testing.assert_array_equal(session.mask(), session.candidates()[0][1])
    session.undo()
    session.point(20, 20)
    np.testing.assert_array_equal(session.mask(), session.candidates()[0][session.choice()])
    (seen,) = session.volumes().values()
    for index in range(len(saved)):
        np.testing.assert_array_equal(session.mask(index), seen[index])
    assert (seen != saved).any()
    session.clear()  # what was propagated came from a prompt that is no more
    assert session.mask() is None and session.mask(session.slice_index + 1) is not None


def test_candidates_and_choice(scene):
    session = session_of(scene)
    assert session.candidates() is None and session.choice() is None
    session.point(10, 12)
    masks, scores = session.candidates()
    assert session.choice() == int(scores.argmax())
    for number in range(3):
        session.choose(number)
        np.testing.assert_array_equal(session.mask(), masks[number])
    session.adopt()
    np.testing.assert_array_equal(session.prompt.mask, masks[2])
    session.point(4, 4)
    assert session.prompt.points == ((4, 4),) and session.prompt.mask is None


def test_the_masks_are_the_oracle_s(scene):
    session = worked(session_of(scene))
    prompts = {index: prompt for (_, index), prompt in session.state.prompts.items()}
    name, shape = session.object_name, scene.slices.shape
    design = Design("centre_slice", "one_point", "front_to_end", "first_mask")
    options, given = PropagationOptions(until="volume_end"), {name: tuple(prompts)}
    empty = {name: np.zeros(shape, bool)}
    for one in reference.sweep(
        session.model, scene.slices, empty, [design], lambda _n, i, _k: prompts[i], options, given
    ):
        np.testing.assert_array_equal(session.state.masks[name][one.slice_index], one.mask)


def test_saved_prompts_give_the_same_masks_and_the_same_rows(scene, folder, tmp_path):
    session = worked(session_of(scene))
    session.save(tmp_path / "prompts.jsonl")
    other = session_of(scene)
    other.load(tmp_path / "prompts.jsonl")
    assert other.propagate("front_to_end", "first_mask")
    same_masks(other, session)
    design = Design("centre_slice", "one_point", "front_to_end", "first_mask")
    rows = evaluate_3d(
        session.model, load_case(folder), [design], seed=1, prompt_source=tmp_path / "prompts.jsonl"
    )
    curve = session.curve()
    assert rows and all(row["value"] == curve[row["slice_index"]] for row in rows)


def test_masks_are_saved_on_the_source_s_grid(scene, tmp_path):
    session = worked(session_of(scene))
    (path,) = session.save_masks(tmp_path)
    assert nib.load(path).get_fdata().sum() == session.state.masks[session.object_name].sum()


def test_a_file_without_a_truth_is_prompted_and_its_mask_lies_on_it(tmp_path):
    """An own image, oblique and sagittal: prompted, propagated, saved, and laid over by SimpleITK."""
    array = np.random.default_rng(1).normal(0, 20, (30, 26, 6)).astype(np.float32)
    array[8:20, 6:18, 1:5] += 200
    a = np.deg2rad(10)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 5.0], [np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0]])
    nib.save(nib.Nifti1Image(array, affine), tmp_path / "own.nii.gz")
    scene = scene_of_file(tmp_path / "own.nii.gz")
    session = session_of(scene, objects=["tumour"])
    assert session.score() is None and session.curve() is None and session.slice_index == 3
    session.box(7, 9, 17, 18)
    assert session.propagate()
    assert session.curve().sum() == session.state.masks["tumour"].sum()
    session.save(tmp_path / "prompts.jsonl")
    other = session_of(scene_of_file(tmp_path / "own.nii.gz"), objects=["tumour"])
    other.load(tmp_path / "prompts.jsonl")
    other.propagate()
    same_masks(other, session)
    (path,) = session.save_masks(tmp_path / "masks")
    mask, original = sitk.ReadImage(str(path)), sitk.ReadImage(str(tmp_path / "own.nii.gz"))
    assert mask.GetSize() == original.GetSize()
    np.testing.assert_allclose(mask.GetDirection(), original.GetDirection(), atol=1e-5)
    found = sitk.GetArrayFromImage(mask)
    values = scene.image.array[session.state.masks["tumour"]]
    assert sorted(sitk.GetArrayFromImage(original)[found > 0]) == sorted(values)


def test_a_picture_in_colour_is_prompted_in_colour(tmp_path):
    pages = np.stack([networks.textured_slices(4, 40, 52, seed) for seed in range(3)], axis=-1)
    first, *rest = [Image.fromarray(page) for page in pages]
    first.save(tmp_path / "own.tif", save_all=True, append_images=rest)
    scene = scene_of_file(tmp_path / "own.tif", slice_axis="stored", intensity=Intensity("stored"))
    np.testing.assert_array_equal(scene.slices, pages)
    session = session_of(scene, objects=["tumour"])
    session.box(7, 9, 37, 28)
    masks, _ = session.candidates()
    asked = {"tumour": (session.slice_index, session.prompt)}
    (_, expected, _), = candidates(networks.small_model(), pages, asked)  # fmt: skip
    np.testing.assert_array_equal(masks, expected)
    assert session.propagate() and session.state.masks["tumour"].shape == pages.shape[:3]
    view = Explorer(session, folder=tmp_path)
    np.testing.assert_array_equal(view.ax.images[0].get_array(), pages[session.slice_index])
    (path,) = session.save_masks(tmp_path / "masks")
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(path))).shape == pages.shape[:3]


def test_a_cancelled_propagation_changes_nothing(scene):
    session = session_of(scene)
    session.point(10, 12)
    before, log = session.state, list(session.log)
    told = []
    assert not session.propagate(progress=lambda done, total: told.append((done, total)) or done == 3)
    assert session.state is before and session.log == log
    assert told == [(n, len(scene.slices)) for n in (1, 2, 3)]
    assert session.propagate()


def test_what_cannot_be_done_is_said(scene, tmp_path):
    session = session_of(scene)
    for action in (
        session.propagate,
        session.adopt,
        lambda: session.choose(1),
        lambda: session.save(tmp_path),
        lambda: session.save_masks(tmp_path),
    ):
        with pytest.raises(StudyError):
            action()
    with pytest.raises(InputError, match="outside"):
        session.point(-3, 5)
    with pytest.raises(StudyError, match="no known object"):
        session.select("livre")
    alone = Session(networks.small_sam(), scene)
    alone.point(10, 12)
    assert alone.mask().shape == scene.slices.shape[1:]
    (path,) = alone.save_masks(tmp_path / "masks")  # a model without memory has the masks of single slices
    assert np.asarray(nib.load(path).dataobj).sum() == alone.mask().sum() > 0
    with pytest.raises(StudyError, match="has no memory"):
        alone.propagate()


def press(view, ax, x, y, button=1):
    px, py = ax.transData.transform((x, y))
    MouseEvent("button_press_event", view.canvas, px, py, button)._process()


def test_the_widgets_do_what_the_session_does(scene, tmp_path):
    view = Explorer(session_of(scene), tmp_path)
    session, start = view.session, view.session.slice_index
    view.canvas.draw()
    press(view, view.ax, 10, 12)
    view.mode.value = "point outside"
    press(view, view.ax, 30, 33)
    assert session.prompt.points == ((10, 12), (30, 33)) and session.prompt.labels == (1, 0)
    press(view, view.thumbnails[2], 5, 5)
    assert session.choice() == 2 and view.thumbnails[2].title.get_fontweight() == "bold"
    view.mode.value = "box"
    press(view, view.ax, 5, 6)
    px, py = view.ax.transData.transform((40, 30))
    MouseEvent("motion_notify_event", view.canvas, px, py, 1, buttons=[1])._process()
    MouseEvent("button_release_event", view.canvas, px, py, 1)._process()
    assert session.prompt.box == (5, 6, 40, 30)
    view.buttons["undo"].click()
    assert session.prompt.box is None
    view.buttons["redo"].click()
    KeyEvent("key_press_event", view.canvas, "up")._process()
    assert session.slice_index == start + 1 == view.slice.value
    MouseEvent("scroll_event", view.canvas, 100, 100, step=-1)._process()
    assert session.slice_index == start
    view.buttons["propagate"].click()
    view.wait(60)
    assert session.state.masks and view.status.value == "propagated to every slice"
    press(view, view.curve, start + 3, 0.5)
    assert session.slice_index == start + 3
    view.buttons["save"].click()
    assert view.prompts_path.is_file() and "saved" in view.status.value
    view.buttons["load"].click()
    assert not session.state.masks and session.prompt.box == (5, 6, 40, 30)


def test_no_error_of_a_callback_is_lost(scene, tmp_path, monkeypatch):
    view = Explorer(session_of(scene), tmp_path)
    view.buttons["save"].click()
    assert "there is no prompt to save" in view.status.value
    view.buttons["propagate"].click()
    view.wait(20)
    assert "has no prompt" in view.status.value and not view.buttons["propagate"].disabled

    def broken(*_):
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(view.session, "point", broken)
    view.canvas.draw()
    press(view, view.ax, 10, 12)
    assert "ZeroDivisionError" in view.status.value


def test_results_open_at_a_click_and_equal_the_table(folder):
    model, case = networks.small_model(), load_case(folder)
    design = Design("centre_slice", "one_box", "bidirectional", "first_mask")
    rows = evaluate_2d(model, case, ["one_point"], seed=7, prompt_source="jittered:0.2:1")
    table = as_table(rows + evaluate_3d(model, case, [design], seed=7))
    worst = chosen_rows(table, {"task": "3d"})
    assert list(worst.value) == sorted(table[table.task == "3d"].value)
    view = ResultsView(table, lambda _name: model, folder.parents[1], seed=7)
    for task in ("2d", "3d"):
        view.filters["task"].value = task
        view.rows.value = view.rows.options[3][1]
        row = table.loc[view.rows.value]
        assert row["task"] == task and view.panels[-1].iou == row["value"]
        assert bytes(view.picture.value).startswith(b"\x89PNG") and "as in the table" in view.status.value
    changed = pd.Series(row.to_dict() | {"value": 0.123})
    with pytest.raises(InputError, match="in the table"):
        pictures_of_row(changed, lambda _name: model, folder.parents[1], seed=7)
    view._prepared = folder
    view.rows.value = view.rows.options[4][1]
    assert "is no prepared case" in view.status.value


def test_two_prompts_and_two_models_stand_side_by_side(scene):
    other = replace(networks.small_model(seed=5), name="other_model")
    session = session_of(scene)
    view = SideBySide(session, lambda _: other, ["other_model"])
    assert view.numbers == {} and "no mask" in view.status.value
    view.buttons["put these prompts aside"].click()
    assert "no prompt yet" in view.status.value

    session.box(5, 6, 40, 30)
    view.buttons["draw again"].click()
    answers = [np.asarray(view.side(n).mask()) for n in range(2)]
    np.testing.assert_array_equal(answers[0], session.mask())
    assert (answers[0] != answers[1]).any()
    assert view.numbers["Dice of the two, this slice"] == dice(*answers)
    assert view.numbers["IoU with the truth, left, this slice"] == session.score()

    view.buttons["propagate both"].click()
    volumes = [view.side(n).state.masks[session.object_name] for n in range(2)]
    assert view.numbers["Dice of the two, volume"] == dice(*volumes)
    assert not session.state.masks  # nothing changes in the explorer
    session.propagate()
    np.testing.assert_array_equal(session.state.masks[session.object_name], volumes[0])

    view.buttons["put these prompts aside"].click()
    view.models[1].value = view.models[0].value
    assert view.numbers["Dice of the two, this slice"] == 1
    session.box(8, 9, 20, 20)
    view.buttons["draw again"].click()
    assert view.prompts[0].value == "put aside, number 1" and view.prompts[1].value == "as they are now"
    assert view.panels[0].prompt.box == (5, 6, 40, 30) and view.panels[1].prompt.box == (8, 9, 20, 20)
    assert view.numbers["Dice of the two, this slice"] < 1
    assert "Dice of the two, volume" not in view.numbers  # of the new prompts there is none yet
    view.buttons["propagate both"].click()
    session.propagate()
    now = view.side(1).state.masks[session.object_name]
    np.testing.assert_array_equal(now, session.state.masks[session.object_name])


def test_a_look_in_3d_needs_an_extra_and_says_so(scene, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipyniivue", None)  # as if it were not installed
    with pytest.raises(StudyError, match=r"not installed.*medsam-nb\[view3d\]"):
        view3d(scene, {}, tmp_path)


def test_a_look_in_3d_shows_image_truth_and_masks_in_one_place(scene, tmp_path):
    pytest.importorskip("ipyniivue")
    session = session_of(scene)
    session.box(5, 6, 40, 30)
    session.propagate()
    widget = view3d(scene, session.state.masks, tmp_path, truth=session.object_name)
    assert [volume.colormap for volume in widget.volumes] == ["gray", "green", "red"]
    image, truth, mask = (nib.load(volume.path) for volume in widget.volumes)
    np.testing.assert_array_equal(image.affine, mask.affine)
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, scene.slices)
    np.testing.assert_array_equal(np.asarray(truth.dataobj).T, scene.truth[session.object_name])
    np.testing.assert_array_equal(np.asarray(mask.dataobj).T, session.state.masks[session.object_name])
