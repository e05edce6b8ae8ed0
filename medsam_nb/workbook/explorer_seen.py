"""What a session of the explorer shows: its prompts, and the masks, scores and pictures of these."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from medsam_nb.evaluation.single_slices import candidates
from medsam_nb.figures.slices import Panel
from medsam_nb.models.checkpoints import Model
from medsam_nb.models.features import SliceFeatures, one_thread
from medsam_nb.protocol.metrics import iou
from medsam_nb.protocol.prompts import Prompt
from medsam_nb.workbook.explorer_scene import Scene

Place = tuple[str, int]  # an object and a slice


@dataclass(frozen=True, eq=False)
class State:
    """What undo goes back to.

    Attributes
    ----------
    prompts : mapping of (object, slice) to Prompt
    chosen : mapping of (object, slice) to int
        Candidates that a person chose; elsewhere the model's most confident one counts.
    masks : mapping of object to ndarray of bool, shape (z, y, x)
        Propagated.
    carried : mapping of object to mapping of slice to Prompt
        What the propagated masks came from.
    """

    prompts: Mapping[Place, Prompt] = field(default_factory=dict)
    chosen: Mapping[Place, int] = field(default_factory=dict)
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    carried: Mapping[str, Mapping[int, Prompt]] = field(default_factory=dict)


class Seen:
    """An image, a model, and the state that a person has brought about; see `explorer_session.Session`.

    Parameters
    ----------
    model : Model
    scene : Scene
    objects : tuple of str
        Names of what is outlined.
    """

    def __init__(self, model: Model, scene: Scene, objects: tuple[str, ...]) -> None:
        self.model, self.scene, self.objects = model, scene, objects
        self.object_name = objects[0]
        self.slice_index = self._first_slice()
        self.state = State()
        self.features = SliceFeatures(model, scene.slices)
        self._answers: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}

    def _first_slice(self) -> int:
        truth = self.scene.truth.get(self.object_name)
        return len(self.scene.slices) // 2 if truth is None else int(truth.sum((1, 2)).argmax())

    @property
    def place(self) -> Place:
        """The object and the slice that actions are about."""
        return self.object_name, self.slice_index

    @property
    def prompt(self) -> Prompt | None:
        """The prompt of the object on this slice."""
        return self.state.prompts.get(self.place)

    def candidates(self, place: Place | None = None) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the three candidates, bool (3, y, x), and their scores; None without points or box."""
        name, index = place or self.place
        prompt = self.state.prompts.get((name, index))
        if prompt is None or prompt.mask is not None:
            return None
        key = index, prompt.content
        if key not in self._answers:
            with one_thread():
                asked = {0: (index, prompt)}
                _, *answer = next(candidates(self.model, self.scene.slices, asked, features=self.features))
            self._answers[key] = tuple(answer)
        return self._answers[key]

    def choice(self, place: Place | None = None) -> int | None:
        """Return the number of the candidate that counts: the chosen one, or the most confident."""
        found = self.candidates(place)
        return None if found is None else self.state.chosen.get(place or self.place, int(np.argmax(found[1])))

    def mask(self, index: int | None = None, object_name: str = "") -> np.ndarray | None:
        """Return the mask of an object on a slice, bool (y, x): of the one that is worked on, unless named.

        The propagated one, unless the slice's prompt has changed since, or a candidate was chosen: then that
        of the prompt. None where there is neither.
        """
        name = object_name or self.object_name
        place = name, self.slice_index if index is None else index
        prompt = self.state.prompts.get(place)
        if self.is_carried(place):
            return self.state.masks[name][place[1]]
        if prompt is not None and prompt.mask is not None:
            return prompt.mask
        return None if prompt is None else self.candidates(place)[0][self.choice(place)]

    def volumes(self) -> dict[str, np.ndarray]:
        """Return the masks of all objects as they are seen, bool (z, y, x): propagated, or prompted alone."""
        found = {}
        for name in self.objects:
            prompted = {index for of, index in self.state.prompts if of == name}
            if name not in self.state.masks and not prompted:
                continue
            empty = np.zeros(self.scene.slices.shape[:3], bool)
            found[name] = self.state.masks.get(name, empty).copy()
            for index in prompted | set(self.state.carried.get(name, ())):
                seen = self.mask(index, name)
                found[name][index] = False if seen is None else seen
        return found

    def is_carried(self, place: Place | None = None) -> bool:
        """Whether a slice's mask is a propagated one, made from the slice's prompt as it is now."""
        name, index = place = place or self.place
        came_from = self.state.carried.get(name)
        fits = came_from is not None and came_from.get(index) is self.state.prompts.get(place)
        return fits and place not in self.state.chosen

    def whole(self, name: str) -> np.ndarray | None:
        """Return an object's mask, bool (z, y, x), if it was propagated from its prompts as they are now."""
        prompts = {index: prompt for (of, index), prompt in self.state.prompts.items() if of == name}
        return self.state.masks.get(name) if dict(self.state.carried.get(name, {})) == prompts else None

    def score(self) -> float | None:
        """Return the IoU of this slice's mask with the truth; None without either."""
        truth, mask = self.scene.truth.get(self.object_name), self.mask()
        return None if truth is None or mask is None else iou(truth[self.slice_index], mask)

    def curve(self) -> np.ndarray | None:
        """Return, for every slice, the IoU of the propagated mask, or its area in pixels without a truth."""
        mask, truth = self.state.masks.get(self.object_name), self.scene.truth.get(self.object_name)
        if mask is None:
            return None
        if truth is None:
            return mask.sum((1, 2)).astype(float)
        return np.array([iou(a, b) if a.any() else np.nan for a, b in zip(truth, mask, strict=True)])

    def panel(self, words: str = "", index: int | None = None) -> Panel:
        """Return a slice as a picture: this one, unless another is named."""
        index = self.slice_index if index is None else index
        truth, mask = self.scene.truth.get(self.object_name), self.mask(index)
        truth = None if truth is None else truth[index]
        score = None if truth is None or mask is None else iou(truth, mask)
        prompt = self.state.prompts.get((self.object_name, index))
        title = f"slice {index}: {words}" if words else f"slice {index}"
        spacing = self.scene.image.spacing_mm[1:]
        return Panel(self.scene.slices[index], truth, mask, prompt, score, title, spacing)

    def panels(self, count: int = 5) -> list[Panel]:
        """Return pictures of slices spread over the propagated mask."""
        filled = np.flatnonzero(self.state.masks[self.object_name].any((1, 2)))
        chosen = (
            filled[np.unique(np.linspace(0, len(filled) - 1, count).round().astype(int))]
            if len(filled)
            else []
        )
        return [self.panel("", int(index)) for index in chosen]
