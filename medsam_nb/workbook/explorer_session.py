"""Prompting by hand, without a screen: what a person can do, as a state machine that can be replayed.

A session holds prompts by object and slice, the candidate masks of prompted slices, and the propagated masks.
Every action is noted as plain values, so that a session is a text; replayed, it gives the same masks bit for
bit. The widgets of `explorer_view` only call these actions.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from medsam_nb.errors import InputError, StudyError, require_known
from medsam_nb.evaluation.propagation import sweep
from medsam_nb.evaluation.single_slices import candidates
from medsam_nb.figures.slices import Panel
from medsam_nb.files import write_atomically
from medsam_nb.models.checkpoints import Model
from medsam_nb.models.features import SliceFeatures, one_thread
from medsam_nb.protocol.designs import DIRECTIONS, MASK_CHOICES_3D, Design
from medsam_nb.protocol.metrics import iou
from medsam_nb.protocol.options import PropagationOptions
from medsam_nb.protocol.prompts import Prompt, central_point, largest_components, tight_box
from medsam_nb.protocol.prompts_file import lines_of, prompts_on, read_prompts, write_prompts
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


class Session:
    """One person, one image, one model.

    Parameters
    ----------
    model : Model
        Of family "sam2" to propagate; "sam" prompts single slices.
    scene : Scene
    objects : sequence of str, optional
        Names of what is to be outlined; those of the truth, if not given.
    author : str
        Who prompts; stands in the file of prompts.
    kept : Path, optional
        Where the session's text is kept after every action; if there is one already, it is restored.

    Attributes
    ----------
    slice_index : int
    object_name : str
    state : State
    log : list of dict
        What was done, as `replay` reads it.
    """

    def __init__(
        self,
        model: Model,
        scene: Scene,
        objects: Iterable[str] = (),
        *,
        author: str = "",
        kept: Path | None = None,
    ) -> None:
        self.model, self.scene, self.author = model, scene, author
        self.objects = tuple(objects) or tuple(scene.truth) or ("object",)
        self.object_name = self.objects[0]
        self.slice_index = self._first_slice()
        self.state, self._before, self._after = State(), [], []
        self.log: list[dict] = [{"do": "open", "image": scene.sha256()}]
        self.features = SliceFeatures(model, scene.slices)
        self._answers: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}
        self._kept = None  # while it is read, nothing is written there
        if kept is not None and Path(kept).is_file():
            replay(self, read_log(kept))
        self._kept = Path(kept) if kept is not None else None

    def _first_slice(self) -> int:
        truth = self.scene.truth.get(self.object_name)
        return len(self.scene.slices) // 2 if truth is None else int(truth.sum((1, 2)).argmax())

    # What is seen.

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

    def mask(self, index: int | None = None) -> np.ndarray | None:
        """Return the object's mask on a slice, bool (y, x).

        The propagated one, unless the slice's prompt has changed since, or a candidate was chosen: then that
        of the prompt. None where there is neither.
        """
        place = self.object_name, self.slice_index if index is None else index
        prompt = self.state.prompts.get(place)
        if self.is_carried(place):
            return self.state.masks[self.object_name][place[1]]
        if prompt is not None and prompt.mask is not None:
            return prompt.mask
        return None if prompt is None else self.candidates(place)[0][self.choice(place)]

    def is_carried(self, place: Place | None = None) -> bool:
        """Whether a slice's mask is a propagated one, made from the slice's prompt as it is now."""
        name, index = place = place or self.place
        came_from = self.state.carried.get(name)
        fits = came_from is not None and came_from.get(index) is self.state.prompts.get(place)
        return fits and place not in self.state.chosen

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

    # What can be done. Every action is noted when it has succeeded.

    def _note(self, action: str, **values: object) -> None:
        self.log.append({"do": action} | values)
        if self._kept is not None:
            write_atomically(self._kept, log_text(self).encode())

    def _become(self, **changes: object) -> None:
        self._before.append(self.state)
        self._after.clear()
        self.state = replace(self.state, **changes)

    def _prompted(self, prompt: Prompt | None) -> None:
        prompts = {place: p for place, p in self.state.prompts.items() if place != self.place}
        chosen = {place: c for place, c in self.state.chosen.items() if place != self.place}
        self._become(prompts=prompts | ({} if prompt is None else {self.place: prompt}), chosen=chosen)

    def open(self, image: str) -> None:
        """Check that a text that is replayed was made on this image; every text begins with it."""
        if image != self.scene.sha256():
            raise InputError(
                "session",
                f"it was made on another image than {self.scene.case_id} is now.",
                "Move it away to begin anew, or open its image.",
            )

    def go(self, slice_index: int) -> None:
        """Show another slice, the nearest there is."""
        self.slice_index = int(np.clip(slice_index, 0, len(self.scene.slices) - 1))
        self._note("go", slice_index=self.slice_index)

    def select(self, object_name: str) -> None:
        """Work on another object."""
        require_known("object", object_name, self.objects, what="object")
        self.object_name = object_name
        self._note("select", object_name=object_name)

    def _require_inside(self, *points: tuple[float, float]) -> None:
        height, width = self.scene.slices.shape[1:3]
        for x, y in points:
            if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
                raise InputError(f"({x:g}, {y:g})", "lies outside the image.", "Click on the image.")

    def point(self, x: float, y: float, positive: bool = True) -> None:
        """Add a point, at the centre of its pixel; beside a mask as a prompt it begins anew."""
        self._require_inside((x, y))
        before = self.prompt if self.prompt is not None and self.prompt.mask is None else Prompt()
        x, y = round(x), round(y)
        points, labels = (*before.points, (x, y)), (*before.point_labels, int(positive))
        self._prompted(Prompt(points, before.box, labels=labels))
        self._note("point", x=x, y=y, positive=bool(positive))

    def box(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Set the box of this slice, in place of an earlier one; the points stay."""
        self._require_inside((x0, y0), (x1, y1))
        (x0, x1), (y0, y1) = sorted((round(x0), round(x1))), sorted((round(y0), round(y1)))
        before = self.prompt if self.prompt is not None and self.prompt.mask is None else Prompt()
        self._prompted(Prompt(before.points, (x0, y0, x1, y1), labels=before.labels))
        self._note("box", x0=x0, y0=y0, x1=x1, y1=y1)

    def choose(self, number: int) -> None:
        """Choose one of the candidates of this slice; it counts for the slice's mask."""
        if self.candidates() is None:
            raise StudyError("choose", "there is no candidate on this slice.", "Give points or a box first.")
        require_known("choose", number, range(3), what="candidate")
        self._become(chosen=dict(self.state.chosen) | {self.place: int(number)})
        self._note("choose", number=int(number))

    def adopt(self) -> None:
        """Make this slice's mask its prompt: propagation then starts from the mask itself."""
        mask = self.mask()
        if mask is None or not mask.any():
            raise StudyError("adopt", "there is no mask on this slice.", "Prompt it first.")
        self._prompted(Prompt(mask=mask.copy()))
        self._note("adopt")

    def clear(self) -> None:
        """Take the prompt of this slice away."""
        self._prompted(None)
        self._note("clear")

    def undo(self) -> None:
        """Go back one step of prompts, choices and masks; where there is none, nothing happens."""
        if self._before:
            self._after.append(self.state)
            self.state = self._before.pop()
            self._note("undo")

    def redo(self) -> None:
        """Take back an undo."""
        if self._after:
            self._before.append(self.state)
            self.state = self._after.pop()
            self._note("redo")

    def propagate(
        self,
        direction: str = "bidirectional",
        mask_choice: str = "most_confident_mask",
        progress: Callable[[int, int], bool | None] | None = None,
    ) -> bool:
        """Carry the object from its prompted slices to all others.

        Parameters
        ----------
        direction, mask_choice : str
            See `designs.Design`.
        progress : callable (done, total) -> bool, optional
            Told after every slice; if it returns True, the run is given up and nothing changes.

        Returns
        -------
        bool
            Whether it ran to the end.
        """
        require_known("direction", direction, DIRECTIONS, what="direction")
        require_known("mask_choice", mask_choice, MASK_CHOICES_3D, what="mask choice")
        if self.model.family != "sam2":
            raise StudyError("propagate", f"{self.model.name} has no memory.", "Use a model of SAM 2.")
        name, depth = self.object_name, len(self.scene.slices)
        prompts = {index: prompt for (of, index), prompt in self.state.prompts.items() if of == name}
        if not prompts:
            raise StudyError("propagate", f"{name} has no prompt.", "Give points or a box on a slice first.")
        mask = np.zeros(self.scene.slices.shape[:3], bool)
        design = Design("centre_slice", "one_point", direction, mask_choice)  # the slices are given
        found = sweep(
            self.model,
            self.scene.slices,
            {name: mask},
            (design,),
            lambda _name, index, _kind: prompts[index],
            PropagationOptions(until="volume_end"),
            features=self.features,
            given={name: tuple(prompts)},
        )
        with one_thread():
            for done, one in enumerate(found, 1):
                mask[one.slice_index] = one.mask
                if progress is not None and progress(done, depth):
                    found.close()
                    return False
        self._become(
            masks=dict(self.state.masks) | {name: mask},
            carried=dict(self.state.carried) | {name: prompts},
            chosen={place: number for place, number in self.state.chosen.items() if place[0] != name},
        )
        self._note("propagate", direction=direction, mask_choice=mask_choice)
        return True

    # Files.

    def save(self, path: Path) -> None:
        """Write the prompts as a file (`prompts_file`)."""
        lines = []
        for (name, index), prompt in self.state.prompts.items():
            lines += lines_of(self.scene, name, index, prompt, author=self.author, order=len(lines))
        if not lines:
            raise StudyError(path, "there is no prompt to save.", "Give one first.")
        write_prompts(path, lines)

    def load(self, path: Path) -> None:
        """Replace the prompts by those of a file."""
        found = prompts_on(self.scene, read_prompts(path), self.objects)
        if not found:
            raise InputError(path, f"holds no prompt for {self.scene.case_id}.", "Choose its case.")
        self._become(prompts=dict(found), chosen={}, masks={}, carried={})
        self.object_name, self.slice_index = next(iter(found))
        self._note("load", path=str(path))

    def save_masks(self, folder: Path, description: str = "byHand") -> list[Path]:
        """Write the propagated masks as NIfTI on the grid of the image's source."""
        if not self.state.masks:
            raise StudyError(folder, "there is no mask to save.", "Propagate first.")
        record = {"Model": self.model.name, "Author": self.author, "Session": self.log}
        return self.scene.write(Path(folder), self.state.masks, description, record)


ACTIONS = (
    *(
        "open",
        "go",
        "select",
        "point",
        "box",
        "choose",
        "adopt",
        "clear",
        "undo",
        "redo",
        "propagate",
        "load",
    ),
)


def log_text(session: Session) -> str:
    """Return what was done in a session, a line of JSON per action."""
    return "".join(f"{json.dumps(line)}\n" for line in session.log)


def read_log(path: Path) -> list[dict]:
    """Read the text of a session."""
    try:
        return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line]
    except (OSError, ValueError) as error:
        raise InputError(path, f"is no session ({error}).", "Delete it to begin anew.") from error


def replay(session: Session, log: Iterable[Mapping]) -> Session:
    """Do again what was done; returns the session."""
    for line in log:
        values = {key: value for key, value in line.items() if key != "do"}
        require_known("session", line["do"], ACTIONS, what="action")
        getattr(session, line["do"])(**values)
    return session


def demonstrate(session: Session) -> list[Panel]:
    """Do what a person would do on one slice, a step at a time, and return a picture after each.

    A click where the object is thickest, a click outside its corner, a box; without a truth the clicks fall
    on and beside the centre of the image. The prompt that is left has all three.
    """
    height, width = session.scene.slices.shape[1:3]
    truth = session.scene.truth.get(session.object_name)
    if truth is None:
        inside, box = (width // 2, height // 2), (width // 3, height // 3, 2 * width // 3, 2 * height // 3)
    else:
        component = largest_components(truth[session.slice_index])[0]
        inside, box = central_point(component, session.scene.case_id), tight_box(component)
    outside = max(box[0] - 2, 0), max(box[1] - 2, 0)
    pictures = []
    for words, action in (
        ("a click inside", partial(session.point, *inside)),
        ("and a click outside", partial(session.point, *outside, False)),
        ("and a box", partial(session.box, *box)),
    ):
        action()
        pictures.append(session.panel(words))
    return pictures
