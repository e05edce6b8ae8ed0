"""What may help where neighbouring slices differ too much: done to the slices, without any training.

Every repair takes what a model is shown (`volume_changes.ShownVolume`) and returns it in another form; scored
are the same slices as before. What a repair costs is how many slices more are encoded and tracked.
"""

from dataclasses import asdict, dataclass

import cv2
import numpy as np

from medsam_nb.errors import require_known, require_whole
from medsam_nb.protocol.designs import start_slice
from medsam_nb.protocol.volume_changes import ShownVolume

REPAIRS = ("none", "interpolated", "registered", "repeated", "smoothed", "by_similarity", "three_directions")
COUNTED = ("interpolated", "registered", "repeated")  # repairs with a number of slices
FLOW_BLUR_PX = 2.0  # before the flow is sought: noise does not move along
SMOOTHING = (0.25, 0.5, 0.25)  # previous, own and next slice


@dataclass(frozen=True)
class VolumeRepair:
    """What is done to the slices before they are propagated through.

    Attributes
    ----------
    kind : {"none", "interpolated", "registered", "repeated", "smoothed", "by_similarity", "three_directions"}
        "interpolated": pictures between neighbours, mixed from both. "registered": the same after both were
        moved along the optical flow between them. "repeated": each slice shown several times in a row, its
        last prediction counts. "smoothed": each slice mixed with its neighbours. "by_similarity": not in the
        order of position but of likeness to the prompted slice, in one pass. "three_directions": slices stay
        as they are; the volume is also gone through along its other two axes, prompted there in the same
        way, and a pixel is of the object where two of the three masks say so.
    between : int
        Pictures put between two slices, or how often each is repeated; 0 changes nothing.

    Raises
    ------
    StudyError
        If the kind is unknown or the number no whole number of at least 0.
    """

    kind: str = "none"
    between: int = 0

    def __post_init__(self) -> None:
        require_known("volume repair", self.kind, REPAIRS, what="repair of a volume")
        require_whole("volume repair, between", self.between, 0)

    @property
    def is_identity(self) -> bool:
        """Whether slices stay as they are."""
        return self.kind == "none" or (self.kind in COUNTED and self.between == 0)

    @property
    def name(self) -> str:
        """What tables call it.

        Examples
        --------
        >>> [VolumeRepair(kind, 2).name for kind in REPAIRS[:4]]
        ['none', '2 mixed slices between', '2 registered slices between', 'every slice 3 times']
        >>> [VolumeRepair(kind).name for kind in REPAIRS[4:]]
        ['smoothed along z', 'most similar slices first', 'vote of three directions']
        """
        if self.is_identity:
            return "none"
        noun = "slice" if self.between == 1 else "slices"
        return {
            "interpolated": f"{self.between} mixed {noun} between",
            "registered": f"{self.between} registered {noun} between",
            "repeated": f"every slice {self.between + 1} times",
            "smoothed": "smoothed along z",
            "by_similarity": "most similar slices first",
            "three_directions": "vote of three directions",
        }[self.kind]

    def as_dict(self) -> dict:
        """Return the repair as plain values, for a key or a record."""
        return asdict(self)


def repaired(shown: ShownVolume, repair: VolumeRepair) -> ShownVolume:
    """Return what a model is shown after a repair; the same object where nothing is done to the slices."""
    if repair.is_identity or repair.kind == "three_directions":
        return shown
    if repair.kind == "smoothed":
        return _with(shown, smoothed(shown.slices), range(len(shown.slices)))
    if repair.kind == "by_similarity":
        order = order_by_similarity(shown)
        return _with(shown, shown.slices[order], order)
    if repair.kind == "repeated":
        return _repeated(shown, repair.between)
    return _with_pictures_between(shown, repair)


def smoothed(slices: np.ndarray) -> np.ndarray:
    """Return every slice mixed with its neighbours along z; at the ends the last slice counts twice."""
    padded = np.concatenate([slices[:1], slices, slices[-1:]]).astype(np.float32)
    before, own, after = (padded[i : i + len(slices)] for i in range(3))
    mixed = sum(weight * part for weight, part in zip(SMOOTHING, (before, own, after), strict=True))
    return np.rint(mixed).astype(np.uint8)


def order_by_similarity(shown: ShownVolume) -> list[int]:
    """Return prompted slices, then the others of the object's range, those most like a prompted one first.

    Likeness is the correlation of grey values with the prompted slice that fits best. Where it is equal,
    the nearer slice comes first. The range is that of a run in the order of position, so that as many
    slices are tracked.
    """
    filled = np.flatnonzero(shown.truth.any(axis=(1, 2)))
    low, high = min(filled[0], shown.prompted[0]), max(filled[-1], shown.prompted[-1])
    grey = shown.slices.reshape(len(shown.slices), -1).astype(np.float64)
    grey = grey - grey.mean(axis=1, keepdims=True)
    length = np.linalg.norm(grey, axis=1)
    grey /= np.where(length > 0, length, 1)[:, None]
    likeness = (grey @ grey[list(shown.prompted)].T).max(axis=1).round(9)
    others = [z for z in range(low, high + 1) if z not in shown.prompted]
    nearest = {z: min(abs(z - p) for p in shown.prompted) for z in others}
    return [*shown.prompted, *sorted(others, key=lambda z: (-likeness[z], nearest[z], z))]


def mixed(first: np.ndarray, second: np.ndarray, part: float) -> np.ndarray:
    """Return the picture at a part of the way between two, their weighted mean, uint8."""
    return np.rint((1 - part) * first.astype(np.float32) + part * second.astype(np.float32)).astype(np.uint8)


def flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return how far each pixel of a picture moves to the next one, (y, x, 2) of (x, y) pixels.

    Dense inverse search (Kroeger et al., ECCV 2016) as OpenCV has it.
    """
    grey = [p if p.ndim == 2 else cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in (first, second)]
    calm = [cv2.GaussianBlur(p, (0, 0), FLOW_BLUR_PX) for p in grey]
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return search.calc(*calm, None)


def _moved(picture: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return a picture read at places shifted by (y, x, 2) pixels."""
    height, width = picture.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    places = x + shift[..., 0], y + shift[..., 1]
    return cv2.remap(picture, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _with(shown: ShownVolume, slices: np.ndarray, order: list[int] | range) -> ShownVolume:
    """Return other pictures of the same slices, in another order."""
    order = list(order)
    return ShownVolume(
        slices,
        shown.truth[order],
        tuple(shown.stands_for[z] for z in order),
        tuple(sorted(order.index(p) for p in shown.prompted)),
        shown.step_mm,
    )


def _repeated(shown: ShownVolume, more: int) -> ShownVolume:
    """Return every slice but the prompted ones several times; scored is the copy that a pass reaches last.

    Passes go from where a bidirectional run turns, to both ends.
    """
    turn = start_slice(shown.prompted)
    order, scored, prompted = [], [], []
    for z in range(len(shown.slices)):
        copies = 1 if z in shown.prompted else more + 1
        last = len(order) + (copies - 1 if z >= turn else 0)
        prompted += [last] if z in shown.prompted else []
        scored.append(last)
        order += [z] * copies
    stands_for: list[int | None] = [None] * len(order)
    truth = np.zeros((len(order), *shown.truth.shape[1:]), bool)
    for z, place in enumerate(scored):
        stands_for[place], truth[place] = shown.stands_for[z], shown.truth[z]
    return ShownVolume(shown.slices[order], truth, tuple(stands_for), tuple(prompted), shown.step_mm)


def _with_pictures_between(shown: ShownVolume, repair: VolumeRepair) -> ShownVolume:
    step = repair.between + 1
    count = (len(shown.slices) - 1) * step + 1
    slices = np.empty((count, *shown.slices.shape[1:]), np.uint8)
    truth = np.zeros((count, *shown.truth.shape[1:]), bool)
    slices[::step], truth[::step] = shown.slices, shown.truth
    for z in range(len(shown.slices) - 1):
        first, second = shown.slices[z], shown.slices[z + 1]
        moving = repair.kind == "registered"
        there, back = (flow(first, second), flow(second, first)) if moving else (None, None)
        for number in range(1, step):
            part = number / step
            pictures = (first, second)
            if moving:
                pictures = _moved(first, -part * there), _moved(second, -(1 - part) * back)
            slices[z * step + number] = mixed(*pictures, part)
    stands_for: list[int | None] = [None] * count
    stands_for[::step] = shown.stands_for
    prompted = tuple(p * step for p in shown.prompted)
    return ShownVolume(slices, truth, tuple(stands_for), prompted, shown.step_mm)
