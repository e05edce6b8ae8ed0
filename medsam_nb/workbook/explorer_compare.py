"""Two prompts, or two models, side by side on one slice and in the volume.

A side is prompts and a model: the prompts as they are now in the explorer, or as they were when they were put
aside. What is compared are sessions of their own, so that nothing changes in the explorer.
"""

import traceback
from collections.abc import Callable, Mapping, Sequence
from html import escape
from io import BytesIO

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np

from medsam_nb.errors import StudyError, WorkbookError
from medsam_nb.figures.grids import grid
from medsam_nb.figures.slices import Panel
from medsam_nb.figures.words import label
from medsam_nb.models.checkpoints import Model
from medsam_nb.protocol.metrics import dice, iou
from medsam_nb.workbook.explorer_seen import State
from medsam_nb.workbook.explorer_session import Session

NOW = "as they are now"


def with_model(session: Session, model: Model, state: State | None = None) -> Session:
    """Return a session of its own with the prompts of another, or with earlier ones of it, and a model.

    Chosen candidates and propagated masks are those of a model, so they come along only to the same one.
    """
    state = session.state if state is None else state
    other = Session(model, session.scene, session.objects, author=session.author)
    same = model is session.model
    other.state = state if same else State(prompts=state.prompts)
    if same:
        other.features = session.features
    return other


def compared(
    left: Session, right: Session, object_name: str, slice_index: int, words: tuple[str, str]
) -> tuple[list[Panel], dict[str, float]]:
    """Return both pictures of a slice, and in numbers how alike the two masks are.

    Parameters
    ----------
    left, right : Session
        Of one scene.
    object_name : str
    slice_index : int
    words : (str, str)
        What stands above each picture.

    Returns
    -------
    panels : list of Panel
    numbers : dict
        "Dice of the two, this slice"; where both were propagated "Dice of the two, volume"; with a truth
        "IoU with the truth, left" and "right", of the slice, and of the volume where it was propagated.
        What cannot be measured is not there.
    """
    if left.scene is not right.scene:
        raise StudyError("side by side", "the two are not of one image.", "Compare what lies on one image.")
    sides = {"left": left, "right": right}
    for side in sides.values():
        side.object_name, side.slice_index = object_name, slice_index
    panels = [side.panel(word) for side, word in zip(sides.values(), words, strict=True)]
    truth = left.scene.truth.get(object_name)
    flat = {name: side.mask() for name, side in sides.items()}
    deep = {name: side.whole(object_name) for name, side in sides.items()}
    numbers = {}
    for what, masks, known in (
        ("this slice", flat, None if truth is None else truth[slice_index]),
        ("volume", deep, truth),
    ):
        numbers |= _numbers(what, masks, known)
    return panels, {name: value for name, value in numbers.items() if np.isfinite(value)}


def _numbers(what: str, masks: Mapping[str, np.ndarray | None], truth: np.ndarray | None) -> dict[str, float]:
    found = {}
    if all(mask is not None for mask in masks.values()):
        found[f"Dice of the two, {what}"] = dice(*masks.values())
    for name, mask in masks.items():
        if mask is not None and truth is not None:
            found[f"IoU with the truth, {name}, {what}"] = iou(truth, mask)
    return found


class SideBySide(widgets.VBox):
    """The widgets: prompts and model of either side, a slice, both pictures, and how alike they are.

    Parameters
    ----------
    session : Session
        Of the explorer.
    model_of : callable (name) -> Model
    models : sequence of str
        Names to choose from; that of the session's model first.
    """

    def __init__(self, session: Session, model_of: Callable[[str], Model], models: Sequence[str]) -> None:
        self.session, self._model_of = session, model_of
        self._aside: dict[str, State] = {}
        self._sessions: dict[tuple[str, str], Session] = {}
        self._came_from: dict[tuple[str, str], State] = {}
        names = [(label(name), name) for name in dict.fromkeys([session.model.name, *models])]
        self.prompts = [widgets.Dropdown(options=[NOW], description="prompts") for _ in range(2)]
        self.models = [widgets.Dropdown(options=names, description="model") for _ in range(2)]
        self.models[1].value = names[-1][1]
        depth = len(session.scene.slices)
        self.slice = widgets.IntSlider(
            session.slice_index, 0, depth - 1, description="slice", continuous_update=False
        )
        self.slice.layout.width = "26rem"
        self.buttons = {
            name: widgets.Button(description=name, layout={"width": "auto"})
            for name in ("put these prompts aside", "propagate both", "draw again")
        }
        self.picture, self.status = widgets.Image(format="png"), widgets.HTML()
        self.panels: list[Panel] = []
        self.numbers: dict[str, float] = {}
        self._connect()
        sides = [widgets.VBox(side) for side in zip(self.prompts, self.models, strict=True)]
        super().__init__(
            [
                widgets.HBox(sides),
                widgets.HBox([self.slice, *self.buttons.values()]),
                self.picture,
                self.status,
            ]
        )
        self.redraw()

    def _connect(self) -> None:
        for control in (*self.prompts, *self.models, self.slice):
            control.observe(lambda _: self.redraw(), names="value")
        self.buttons["put these prompts aside"].on_click(lambda _: self._guarded(self.put_aside))
        self.buttons["propagate both"].on_click(lambda _: self._guarded(self.propagate))
        self.buttons["draw again"].on_click(lambda _: self.redraw())

    def _guarded(self, action: Callable[[], object]) -> None:
        """Do something, and show what went wrong: a widget would swallow it."""
        try:
            action()
        except WorkbookError as error:
            self.status.value = f"<b style='color:#b00020'>{escape(str(error))}</b>"
        except Exception:  # a mistake of ours: all of it is shown
            self.status.value = f"<pre style='color:#b00020'>{escape(traceback.format_exc())}</pre>"

    def side(self, number: int) -> Session:
        """Return what stands on a side, 0 or 1."""
        name, model = self.prompts[number].value, self.models[number].value
        state, key = self._aside.get(name, self.session.state), (name, model)
        same, before = model == self.session.model.name, self._came_from.get(key)
        # What another model has propagated stays until the prompts change; the explorer's own is as it is.
        if before is None or before.prompts is not state.prompts or (same and before is not state):
            network = self.session.model if same else self._model_of(model)
            self._sessions[key] = with_model(self.session, network, state)
            self._came_from[key] = state
            self._share_features(self._sessions[key])
        return self._sessions[key]

    def _share_features(self, new: Session) -> None:
        """Let sessions of one model encode a slice once."""
        for other in self._sessions.values():
            if other.model is new.model:
                new.features = other.features
                return

    def put_aside(self) -> None:
        """Keep the prompts as they are now under a number, to compare later ones with."""
        if not self.session.state.prompts:
            raise StudyError("put aside", "there is no prompt yet.", "Give one in the explorer first.")
        name = f"put aside, number {len(self._aside) + 1}"
        self._aside[name] = self.session.state
        for control in self.prompts:
            control.options = [NOW, *self._aside]
        self.prompts[0].value = name
        self.redraw()

    def propagate(self) -> None:
        """Carry the object of the explorer through the volume on both sides, where that was not done yet."""
        for number in range(2):
            side = self.side(number)
            if side.whole(self.session.object_name) is None:
                side.object_name = self.session.object_name
                side.propagate()
        self.redraw()

    def redraw(self) -> None:
        """Draw both sides anew."""
        self._guarded(self._draw)

    def _draw(self) -> None:
        words = [
            f"{label(model.value)}, prompts {prompts.value}"
            for prompts, model in zip(self.prompts, self.models, strict=True)
        ]
        sides = self.side(0), self.side(1)
        self.panels, self.numbers = compared(
            *sides, self.session.object_name, self.slice.value, (words[0], words[1])
        )
        figure, _ = grid(self.panels, columns=2, width_mm=170)
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
        plt.close(figure)
        self.picture.value = buffer.getvalue()
        said = [f"{name}: {value:.3f}" for name, value in self.numbers.items()]
        self.status.value = "; ".join(said) or "There is no mask on this slice yet."
