"""A volume shown in another way: fewer slices, thicker ones, or none of its own but a camera's.

What a model is shown in place of a case is a `ShownVolume`. Every slice of it that is scored stands for one
slice of the case, so that masks under different changes are measured on the same original slices. How much
neighbours differ is the dose; `volume_repairs` holds what may help against it.
"""

from dataclasses import asdict, dataclass

import cv2
import numpy as np

from medsam_nb.errors import require_known, require_whole
from medsam_nb.protocol.intensity import to_uint8
from medsam_nb.protocol.volume import Case

CHANGES = ("none", "decimated", "averaged", "camera")
# The camera's path: sines of the frame number, zero at the prompted slice, so that nothing leaves the
# picture.
CAMERA_PERIOD = 40  # frames of one oscillation at speed 1
CAMERA_SHIFT = 0.06  # of the picture's width and height
CAMERA_DEGREES = 6.0
CAMERA_ZOOM = 0.06


def ordinal(number: int) -> str:
    """Return a whole number as it is counted.

    Examples
    --------
    >>> [ordinal(number) for number in (2, 3, 10, 12, 21)]
    ['2nd', '3rd', '10th', '12th', '21st']
    """
    teen = number % 100 in (11, 12, 13)
    return f"{number}{'th' if teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


@dataclass(frozen=True)
class VolumeChange:
    """How the slices that a model is shown differ from those of the case.

    Attributes
    ----------
    kind : {"none", "decimated", "averaged", "camera"}
        "decimated": every `factor`-th slice, the prompted one among them. "averaged": the same slices, each
        the mean over `factor` slice spacings around it, as a thicker slice is acquired. "camera": the
        prompted slice alone under a smoothly moving camera: what neighbours differ by in a natural video.
    factor : int
        1 changes nothing, but for "camera", where it is the speed.

    Raises
    ------
    StudyError
        If the kind is unknown or the factor no whole number of at least 1.
    """

    kind: str = "none"
    factor: int = 1

    def __post_init__(self) -> None:
        require_known("volume change", self.kind, CHANGES, what="change of a volume")
        require_whole("volume change, factor", self.factor, 1)

    @property
    def is_identity(self) -> bool:
        """Whether the model is shown the case as it is."""
        return self.kind == "none" or (self.kind != "camera" and self.factor == 1)

    @property
    def name(self) -> str:
        """What tables call it.

        Examples
        --------
        >>> [VolumeChange(kind, 3).name for kind in CHANGES]
        ['none', 'every 3rd slice', '3 slices averaged', 'camera motion, speed 3']
        """
        if self.is_identity:
            return "none"
        return {
            "decimated": f"every {ordinal(self.factor)} slice",
            "averaged": f"{self.factor} slices averaged",
            "camera": f"camera motion, speed {self.factor}",
        }[self.kind]

    def as_dict(self) -> dict:
        """Return the change as plain values, for a key or a record."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class ShownVolume:
    """What a model is shown in place of a case, for one object and its prompted slices.

    Attributes
    ----------
    slices : ndarray of uint8, shape (s, y, x) or, in colour, (s, y, x, 3)
        In the order of the run.
    truth : ndarray of bool, shape (s, y, x)
        The object; empty on slices that stand for none of the case.
    stands_for : tuple of int or None
        The slice of the case that each shown slice is scored as.
    prompted : tuple of int
        Shown slices that get a prompt.
    step_mm : float
        Between slices of the case that follow each other here.
    """

    slices: np.ndarray
    truth: np.ndarray
    stands_for: tuple[int | None, ...]
    prompted: tuple[int, ...]
    step_mm: float


def slice_weights(count: int, centre: int, width: int) -> np.ndarray:
    """Return what every slice adds to a thick slice around one of them; the weights sum to 1.

    A slice counts by how much of it lies within the thick one; at the ends of a volume there is less to
    average.

    Examples
    --------
    >>> slice_weights(5, 2, 2).tolist(), slice_weights(5, 0, 3).tolist()
    ([0.0, 0.25, 0.5, 0.25, 0.0], [0.5, 0.5, 0.0, 0.0, 0.0])
    """
    away = np.abs(np.arange(count) - centre)
    within = np.clip((width + 1) / 2 - away, 0, 1)
    return within / within.sum()


def shown_volume(
    case: Case, object_name: str, prompted: tuple[int, ...], change: VolumeChange
) -> ShownVolume:
    """Return what a model is shown of a case under a change.

    Parameters
    ----------
    case : Case
    object_name : str
        Of the case; must have a voxel.
    prompted : tuple of int
        Slices of the case that a design prompts. A single one is always shown. Of several, those are shown
        that are shown for the object's first slice, and prompts move to the nearest that holds the object.
    change : VolumeChange

    Returns
    -------
    ShownVolume
        Of the case itself, without a copy, where nothing is changed.
    """
    slices, mask, spacing = case.slices_uint8(), case.mask(object_name), case.image.spacing_mm[0]
    if change.is_identity:
        return ShownVolume(slices, mask, tuple(range(len(slices))), tuple(prompted), spacing)
    if change.kind == "camera":
        return _filmed(slices, mask, prompted[0], change.factor, spacing)
    sure = prompted[0] if len(prompted) == 1 else int(np.flatnonzero(mask.any(axis=(1, 2)))[0])
    kept = np.arange(sure % change.factor, len(slices), change.factor)
    if change.kind == "averaged":
        weights = np.stack([slice_weights(len(slices), int(z), change.factor) for z in kept])
        stored = case.image.array if case.colours is None else case.colours
        mean = np.tensordot(weights, stored.astype(np.float64), axes=1)
        shown = to_uint8(mean, case.intensity, case.case_id, limits_of=case.image.array)
    else:
        shown = slices[kept]
    truth = mask[kept]
    holding = np.flatnonzero(truth.any(axis=(1, 2)))
    places = {int(holding[np.abs(kept[holding] - z).argmin()]) for z in prompted}
    return ShownVolume(shown, truth, tuple(map(int, kept)), tuple(sorted(places)), spacing * change.factor)


def camera_matrix(frame: int, speed: int, shape: tuple[int, int]) -> np.ndarray:
    """Return where the camera moves a picture's points, an affine (2, 3) of (x, y); frame 0 is unmoved."""
    height, width = shape
    swing = np.sin(2 * np.pi * speed * frame / CAMERA_PERIOD)
    double = np.sin(4 * np.pi * speed * frame / CAMERA_PERIOD)
    centre = (width - 1) / 2, (height - 1) / 2
    matrix = cv2.getRotationMatrix2D(centre, CAMERA_DEGREES * swing, 1 + CAMERA_ZOOM * swing)
    matrix[:, 2] += CAMERA_SHIFT * np.array([width * swing, height * double / 2])
    return matrix


def _filmed(
    slices: np.ndarray, mask: np.ndarray, prompted: int, speed: int, spacing_mm: float
) -> ShownVolume:
    """Return the prompted slice under a moving camera, a frame for every slice of the volume.

    Frames stand for the slices from the object's first to its last, so that distances are the same.
    """
    shape = mask.shape[1:]
    filled = np.flatnonzero(mask.any(axis=(1, 2)))
    frames, truth = np.empty_like(slices), np.zeros_like(mask)
    for z in range(len(slices)):
        matrix, size = camera_matrix(z - prompted, speed, shape), (shape[1], shape[0])
        frames[z] = cv2.warpAffine(slices[prompted], matrix, size, borderMode=cv2.BORDER_REPLICATE)
        if filled[0] <= z <= filled[-1]:
            truth[z] = cv2.warpAffine(mask[prompted].astype(np.float32), matrix, size) > 0.5
    frames[prompted], truth[prompted] = slices[prompted], mask[prompted]
    scored = tuple(z if truth[z].any() else None for z in range(len(slices)))
    return ShownVolume(frames, truth, scored, (prompted,), spacing_mm)
