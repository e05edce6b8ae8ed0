"""A session of the explorer as a text: written, read, done again; and one that a script does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from medsam_nb.errors import InputError, require_known
from medsam_nb.figures.slices import Panel
from medsam_nb.protocol.prompts import central_point, largest_components, tight_box

if TYPE_CHECKING:
    from medsam_nb.workbook.explorer_session import Session

ACTIONS = (
    *("open", "go", "select", "point", "box", "choose", "adopt", "clear", "undo", "redo", "propagate"),
    "load",
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
