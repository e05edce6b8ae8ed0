"""Pictures of predictions: as many as asked for, the prompted slice among them."""

import numpy as np
from helpers import networks

from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.volume import Case, Volume
from medsam_nb.workbook.pictures import panel_of_truth, panels_3d


def case_with_block():
    labels = np.zeros((9, 32, 32), np.uint8)
    labels[1:8, 8:20, 10:24] = 1
    image = np.random.default_rng(0).normal(0, 20, labels.shape).astype(np.float32) + 80 * labels
    return Case("set", "one", "CT", Volume.from_spacing(image, (3.0, 1.0, 1.0)), labels, {"organ": (1,)})


def test_a_row_of_slices_shows_the_prompted_one():
    model = networks.small_model()
    for frame_choice in ("first_slice", "centre_slice", "three_slices"):
        design = Design(frame_choice, "one_box", "bidirectional", "first_mask")
        pictures = panels_3d(model, case_with_block(), "organ", design, seed=1, count=5)
        assert len(pictures) == 5, frame_choice
        prompted = [picture for picture in pictures if picture.prompt is not None]
        assert len(prompted) == (3 if frame_choice == "three_slices" else 1)
        assert all("prompted" in picture.title for picture in prompted)
        assert all(0 <= picture.iou <= 1 for picture in pictures)


def test_picture_of_the_truth_does_not_hold_the_volume():
    picture = panel_of_truth(case_with_block())
    assert picture.image.base is None and picture.truth.base is None
    assert picture.truth.sum() == 12 * 14
