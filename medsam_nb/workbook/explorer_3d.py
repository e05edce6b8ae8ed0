"""A look in 3D: image and masks turned with the mouse, by NiiVue, where its widget is installed."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medsam_nb.data.formats import write_nifti
from medsam_nb.errors import StudyError
from medsam_nb.protocol.volume import Volume
from medsam_nb.workbook.explorer_scene import Scene

if TYPE_CHECKING:
    from ipyniivue import NiiVue

COLOURS = ("red", "blue", "violet", "copper")  # colour maps of NiiVue, in the order of the masks
TRUTH = "green"
OPACITY = 0.5  # of masks over the image


def view3d(
    scene: Scene, masks: Mapping[str, np.ndarray], folder: Path, *, truth: str = "", height_px: int = 520
) -> "NiiVue":
    """Return a widget with three planes and a rendering of a scene's image and masks.

    Parameters
    ----------
    scene : Scene
    masks : mapping of str to ndarray of bool, shape (z, y, x)
        Drawn in this order, each in a colour of its own.
    folder : Path
        Gets the files that the widget reads, as NIfTI.
    truth : str
        Object whose truth is drawn too, in green; none if empty.
    height_px : int

    Raises
    ------
    StudyError
        If ipyniivue is not installed, or there is one slice only.
    """
    try:
        from ipyniivue import NiiVue, ShowRender, SliceType
    except ImportError as error:
        raise StudyError(
            "3D view",
            "ipyniivue is not installed.",
            "pip install 'medsam-nb[view3d]', then open the notebook anew.",
        ) from error
    if len(scene.slices) < 2:
        raise StudyError("3D view", "the image has one slice.", "Choose a volume.")
    shown = {} if not truth else {f"truth of {truth}": scene.truth[truth]}
    colours = [TRUTH] * len(shown) + [COLOURS[n % len(COLOURS)] for n in range(len(masks))]
    image = _written(Path(folder) / "image.nii.gz", scene.slices, scene)
    volumes = [{"path": image, "colormap": "gray", "colorbar_visible": False}]
    for (name, mask), colour in zip((shown | dict(masks)).items(), colours, strict=True):
        path = _written(Path(folder) / f"{name.replace(' ', '_')}.nii.gz", mask.astype(np.uint8), scene)
        look = {"colormap": colour, "opacity": OPACITY, "cal_min": 0.5, "cal_max": 1.0}
        volumes.append({"path": path, "colorbar_visible": False} | look)
    widget = NiiVue(height=height_px, multiplanar_show_render=ShowRender.ALWAYS)
    widget.load_volumes(volumes)
    widget.set_slice_type(SliceType.MULTIPLANAR)
    return widget


def _written(path: Path, array: np.ndarray, scene: Scene) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(path, Volume(array, scene.image.affine))
    return path
