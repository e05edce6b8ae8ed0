"""Prompting by hand, without a screen: what a person can do, as a state machine that can be replayed.

A session holds prompts by object and slice, the candidate masks of prompted slices, and the propagated masks.
Every action is noted as plain values, so that a session is a text; replayed, it gives the same masks bit for
bit. The widgets of `explorer_view` only call these actions.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from medsam_nb.errors import InputError, StudyError, require_known
from medsam_nb.evaluation.propagation import sweep
from medsam_nb.figures.words import label
from medsam_nb.files import write_atomically
from medsam_nb.models.checkpoints import Model
from medsam_nb.models.features import one_thread
from medsam_nb.protocol.designs import DIRECTIONS, MASK_CHOICES_3D, Design
from medsam_nb.protocol.options import PropagationOptions
from medsam_nb.protocol.prompts import Prompt
from medsam_nb.protocol.prompts_file import lines_of, prompts_on, read_prompts, write_prompts
from medsam_nb.workbook.explorer_replay import log_text, read_log, replay
from medsam_nb.workbook.explorer_scene import Scene
from medsam_nb.workbook.explorer_seen import Seen


class Session(Seen):
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
        super().__init__(model, scene, tuple(objects) or tuple(scene.truth) or ("object",))
        self.author, self._before, self._after = author, [], []
        self.log: list[dict] = [{"do": "open", "image": scene.sha256()}]
        self._kept = None  # while it is read, nothing is written there
        if kept is not None and Path(kept).is_file():
            replay(self, read_log(kept))
        self._kept = Path(kept) if kept is not None else None

    # Every action is noted when it has succeeded.

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
            raise StudyError("propagate", f"{label(self.model.name)} has no memory.", "Use a model of SAM 2.")
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
        """Write the masks as they are seen (`volumes`) on the grid of the source; see `Scene.write`."""
        masks = self.volumes()
        if not masks:
            raise StudyError(folder, "there is no mask to save.", "Give a prompt first.")
        record = {"Model": self.model.name, "Author": self.author, "Session": self.log}
        return self.scene.write(Path(folder), masks, description, record)
