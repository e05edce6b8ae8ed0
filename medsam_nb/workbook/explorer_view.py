"""The explorer on screen: a thin layer of widgets over `explorer_session`, drawn on an ipympl canvas.

Widgets hold no state of their own: each calls an action of the session and draws what the session then says.
An error of any callback is shown below the picture. Propagation runs in a thread, so that it can be
cancelled.
"""

import threading
import traceback
import warnings
from collections.abc import Callable
from html import escape
from pathlib import Path

import ipywidgets as widgets
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backend_bases import KeyEvent, MouseEvent
from matplotlib.figure import Figure
from matplotlib.widgets import RectangleSelector

from medsam_nb.errors import WorkbookError
from medsam_nb.figures.slices import PREDICTION, PROMPT, Panel, draw
from medsam_nb.figures.words import label
from medsam_nb.protocol.designs import DIRECTIONS, MASK_CHOICES_3D
from medsam_nb.workbook.explorer_session import Session

SCALE = 1.8  # of lines and marks: those of figures are for print
MODES = ("point inside", "point outside", "box")


def interactive_canvas(figure: Figure) -> widgets.DOMWidget:
    """Return an ipympl canvas for a figure, without toolbar and frame.

    Importing ipympl makes it the backend of all figures; the backend that was chosen is put back, so that
    other figures of a notebook stay pictures.
    """
    chosen = matplotlib.rcParams["backend"]
    plt.switch_backend(chosen)  # loads it while it is the chosen one: only then it registers with IPython
    from ipympl.backend_nbagg import Canvas, FigureManager

    matplotlib.use(chosen)
    canvas = Canvas(figure)
    with warnings.catch_warnings():  # of traitlets, about how ipympl makes its toolbar
        warnings.simplefilter("ignore", DeprecationWarning)
        FigureManager(canvas, 0)
    canvas.header_visible = canvas.footer_visible = canvas.toolbar_visible = canvas.resizable = False
    canvas.capture_scroll = True
    return canvas


class Explorer(widgets.VBox):
    """The widgets of one session.

    Parameters
    ----------
    session : Session
    folder : Path
        Where "save" writes the prompts, and below it in "masks" the masks.
    """

    def __init__(self, session: Session, folder: Path) -> None:
        self.session, self.folder = session, Path(folder)
        self._cancel, self._thread = threading.Event(), None
        self.status = widgets.HTML("Click on the object, or drag a box around it.")
        self._make_controls()
        self._make_canvas()
        super().__init__([self._controls(), self.canvas, self.status])
        self.redraw()

    # Making the widgets.

    def _make_controls(self) -> None:
        depth, wide = len(self.session.scene.slices), {"width": "26rem"}
        self.mode = widgets.ToggleButtons(options=MODES, style={"button_width": "7rem"})
        names = [(label(name), name) for name in self.session.objects]
        self.object = widgets.Dropdown(options=names, layout={"width": "12rem"})
        self.slice = widgets.IntSlider(
            self.session.slice_index, 0, depth - 1, description="slice", continuous_update=False, layout=wide
        )
        self.window = widgets.IntRangeSlider(
            value=(0, 255), min=0, max=255, description="grey levels", continuous_update=False, layout=wide
        )
        self.direction = widgets.Dropdown(options=[(label(d), d) for d in DIRECTIONS[::-1]])
        self.mask_choice = widgets.Dropdown(options=[(label(m), m) for m in MASK_CHOICES_3D[::-1]])
        self.direction.layout.width = self.mask_choice.layout.width = "12rem"
        self.progress = widgets.IntProgress(0, 0, depth, layout={"width": "12rem"})
        has_truth = bool(self.session.scene.truth)
        self.show_truth = widgets.Checkbox(
            has_truth, description="truth (blue)", indent=False, disabled=not has_truth
        )
        self.show_mask = widgets.Checkbox(True, description="mask (orange)", indent=False)
        for box in (self.show_truth, self.show_mask):
            box.layout = {"width": "8.5rem", "align_self": "center", "margin": "0 0 0 0.6rem"}
        actions = {
            "undo": self.session.undo, "redo": self.session.redo, "clear": self.session.clear,
            "use mask as prompt": self.session.adopt, "save": self.save, "load": self.load,
        }  # fmt: skip
        self.buttons = {name: self._button(name, action) for name, action in actions.items()}
        self.buttons["propagate"] = widgets.Button(description="propagate", button_style="primary")
        self.buttons["propagate"].on_click(lambda _: self._guarded(self.propagate))
        self.buttons["cancel"] = widgets.Button(description="cancel", disabled=True)
        self.buttons["cancel"].on_click(lambda _: self._cancel.set())
        for button in self.buttons.values():
            button.layout.width = "auto"
        self.slice.observe(lambda change: self._act(self._go, change["new"]), names="value")
        self.object.observe(lambda change: self._act(self.session.select, change["new"]), names="value")
        for shown in (self.window, self.show_truth, self.show_mask):
            shown.observe(lambda _: self._guarded(self.redraw), names="value")
        self.mode.observe(lambda _: self._guarded(self._arm), names="value")

    def _button(self, name: str, action: Callable[[], object]) -> widgets.Button:
        button = widgets.Button(description=name)
        button.on_click(lambda _: self._act(action))
        return button

    def _controls(self) -> widgets.VBox:
        edit = [self.buttons[name] for name in ("undo", "redo", "clear", "use mask as prompt")]
        carry = [self.direction, self.mask_choice, *(self.buttons[name] for name in ("propagate", "cancel"))]
        files = [self.buttons["save"], self.buttons["load"]]
        return widgets.VBox(
            [
                widgets.HBox([self.mode, self.object]),
                widgets.HBox([self.slice, self.window]),
                widgets.HBox([*edit, self.show_mask, self.show_truth, *files]),
                widgets.HBox([*carry, self.progress]),
            ]
        )

    def _make_canvas(self) -> None:
        figure = Figure(figsize=(10.2, 7.6), dpi=96)
        self.canvas = interactive_canvas(figure)
        # Fixed places: what is clicked must not move when something else appears.
        self.ax = figure.add_axes((0.01, 0.2, 0.72, 0.76))
        self.thumbnails = [figure.add_axes((0.75, 0.73 - 0.265 * n, 0.24, 0.23)) for n in range(3)]
        self.curve = figure.add_axes((0.06, 0.07, 0.93, 0.1))
        self.canvas.mpl_connect("button_press_event", lambda event: self._guarded(self._clicked, event))
        self.canvas.mpl_connect("scroll_event", lambda event: self._guarded(self._scrolled, event))
        self.canvas.mpl_connect("key_press_event", lambda event: self._guarded(self._typed, event))
        self._selector = None

    def _arm(self) -> None:
        """Let a drag on the image draw a box, if that is the mode."""
        if self._selector is not None:
            self._selector.set_active(False)
            self._selector.disconnect_events()
        self._selector = None
        if self.mode.value == "box":
            look = {"edgecolor": PROMPT, "facecolor": "none", "linestyle": "--"}
            self._selector = RectangleSelector(
                self.ax, lambda *ends: self._act(self._boxed, *ends), props=look, minspanx=1, minspany=1
            )

    # Callbacks: what the mouse and the keyboard ask of the session.

    def _guarded(self, action: Callable[..., object], *arguments: object) -> bool:
        """Do something and show what went wrong; a widget would swallow it."""
        try:
            action(*arguments)
        except WorkbookError as error:
            self.status.value = f"<b style='color:#b00020'>{escape(str(error))}</b>"
        except Exception:  # a mistake of ours: all of it is shown
            self.status.value = f"<pre style='color:#b00020'>{escape(traceback.format_exc())}</pre>"
        else:
            return True
        return False

    def _act(self, action: Callable[..., object], *arguments: object) -> None:
        """Do an action of the session and draw what follows."""

        def act() -> None:
            if self._thread is not None and self._thread.is_alive():
                raise WorkbookError("propagation", "is running.", "Wait for it, or cancel it.")
            self.status.value = ""
            action(*arguments)
            self.redraw()

        self._guarded(act)

    def _go(self, index: int) -> None:
        if index != self.session.slice_index:
            self.session.go(index)

    def _clicked(self, event: MouseEvent) -> None:
        if event.inaxes in self.thumbnails:
            self._act(self.session.choose, self.thumbnails.index(event.inaxes))
        elif event.inaxes is self.curve:
            self._act(self._go, round(event.xdata))
        elif event.inaxes is self.ax and self.mode.value != "box":
            positive = self.mode.value == "point inside" and event.button == 1
            self._act(self.session.point, event.xdata, event.ydata, positive)

    def _boxed(self, start: MouseEvent, end: MouseEvent) -> None:
        self.session.box(start.xdata, start.ydata, end.xdata, end.ydata)

    def _scrolled(self, event: MouseEvent) -> None:
        self._act(self._go, self.session.slice_index + int(np.sign(event.step)))

    def _typed(self, event: KeyEvent) -> None:
        steps = {"up": 1, "right": 1, "down": -1, "left": -1, "pageup": 10, "pagedown": -10}
        if event.key in steps:
            self._act(self._go, self.session.slice_index + steps[event.key])
        elif event.key in ("ctrl+z", "u"):
            self._act(self.session.undo)
        elif event.key in ("ctrl+y", "r"):
            self._act(self.session.redo)

    def propagate(self) -> None:
        """Propagate in a thread; progress is shown, and "cancel" ends it."""
        if self._thread is not None and self._thread.is_alive():
            raise WorkbookError("propagation", "is running.", "Wait for it, or cancel it.")
        self._cancel.clear()
        self.buttons["cancel"].disabled, self.buttons["propagate"].disabled = False, True
        self.status.value = "propagating ..."

        def told(done: int, _total: int) -> bool:
            self.progress.value = done
            return self._cancel.is_set()

        def run() -> None:
            ended: list[bool] = []
            carry = self.session.propagate
            worked = self._guarded(
                lambda: ended.append(carry(self.direction.value, self.mask_choice.value, told))
            )
            self.buttons["cancel"].disabled, self.buttons["propagate"].disabled = True, False
            if worked:
                self.status.value = "propagated to every slice" if ended[0] else "cancelled; nothing changed"
                self._guarded(self.redraw)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until a propagation has ended."""
        if self._thread is not None:
            self._thread.join(seconds)

    @property
    def prompts_path(self) -> Path:
        """Where the prompts of this case are saved."""
        return self.folder / f"{self.session.scene.data_set}_{self.session.scene.case_id}_prompts.jsonl"

    def save(self) -> None:
        """Write prompts and masks, and say where they lie."""
        self.session.save(self.prompts_path)
        paths = [self.prompts_path, *self.session.save_masks(self.folder / "masks")]
        self.status.value = "saved:<br>" + "<br>".join(escape(str(path)) for path in paths)

    def load(self) -> None:
        """Take the prompts that were saved."""
        self.session.load(self.prompts_path)
        self.status.value = f"loaded {escape(self.prompts_path.name)}"

    # Drawing.

    def redraw(self) -> None:
        """Draw what the session holds."""
        session = self.session
        self.slice.value, self.object.value = session.slice_index, session.object_name
        self._draw_image()
        self._draw_candidates()
        self._draw_curve()
        self._arm()
        self.canvas.draw_idle()

    def _grey(self) -> np.ndarray:
        low, high = self.window.value
        grey = self.session.scene.slices[self.session.slice_index].astype(np.float32)
        levels = (np.clip((grey - low) / max(high - low, 1), 0, 1) * 255).astype(np.uint8)
        if levels.ndim == 3:
            return levels
        return np.repeat(levels[..., None], 3, axis=-1)  # colours: no scaling to the range

    def _draw_image(self) -> None:
        session, ax = self.session, self.ax
        mask, truth = session.mask(), session.scene.truth.get(session.object_name)
        truth = None if truth is None or not self.show_truth.value else truth[session.slice_index]
        ax.clear()
        shown = mask if self.show_mask.value else None
        spacing = session.scene.image.spacing_mm[1:]
        draw(ax, Panel(self._grey(), truth, shown, session.prompt, spacing_mm=spacing), SCALE)
        score = session.score() if self.show_truth.value else None
        title = f"{label(session.scene.case_id)}: {label(session.object_name)}, slice {session.slice_index}"
        ax.set_title(title + (f", IoU {score:.3f}" if score is not None else ""), fontsize=10)

    def _draw_candidates(self) -> None:
        found, chosen = self.session.candidates(), self.session.choice()
        for number, ax in enumerate(self.thumbnails):
            ax.clear()
            ax.set_axis_off()
            if found is None:
                continue
            masks, scores = found
            spacing = self.session.scene.image.spacing_mm[1:]
            draw(ax, Panel(self._grey(), prediction=masks[number], spacing_mm=spacing), SCALE)
            words = f"mask {number + 1}, score {scores[number]:.2f}"
            counts = number == chosen and not self.session.is_carried()
            ax.set_title(words, fontsize=8, fontweight="bold" if counts else "normal")

    def _draw_curve(self) -> None:
        ax, values = self.curve, self.session.curve()
        ax.clear()
        ax.set_axis_off()
        if values is None:
            return
        ax.set_axis_on()
        ax.plot(values, color=PREDICTION, marker=".", ms=4, lw=1)
        ax.axvline(self.session.slice_index, color="#777777", lw=0.8)
        name = self.session.object_name
        for of, index in self.session.state.prompts:
            if of == name:
                ax.axvline(index, color="#b5a800", lw=1, ls="--")
        has_truth = name in self.session.scene.truth
        ax.set_xlabel("slice (click to go there; dashed: prompted)", fontsize=8)
        ax.set_ylabel("IoU" if has_truth else "area, pixels", fontsize=8)
        ax.set_xlim(-0.5, len(values) - 0.5)
        if has_truth:
            ax.set_ylim(-0.02, 1.02)
        ax.tick_params(labelsize=7)
