"""Whose a run's folder is: one study file's, and one process's at a time."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from medsam_nb.data.cluster import LOCAL
from medsam_nb.data.locks import Locked, locked
from medsam_nb.errors import StudyError
from medsam_nb.files import write_atomically
from medsam_nb.provenance import project_root
from medsam_nb.workbook.study import below_root

RECORD = "study.json"
LOCK, COMPUTING = ".lock", ".computing"


@contextmanager
def owned(folder: Path, study_file: Path) -> Iterator[str]:
    """Hold a run's folder for a study file while the block runs.

    Parameters
    ----------
    folder : Path
        See `study.run_folder`. Its `study.json` says which study file it belongs to.
    study_file : Path

    Yields
    ------
    str
        A remark if an earlier run was killed in this folder; else "".

    Raises
    ------
    StudyError
        If another process runs this study, if the folder holds the results of another study file, or if it
        cannot be written.
    """
    with ExitStack() as held:
        try:
            earlier = held.enter_context(locked(folder / LOCK, f"medsam-nb run {study_file}"))
            claim(folder, study_file)
        except Locked as busy:
            raise StudyError(
                study_file,
                f"is being run already, by {busy}.",
                "Wait until it ends, or end that process; different studies can run side by side.",
            ) from busy
        except OSError as error:
            raise StudyError(
                folder, f"cannot be written: {error.strerror}.", "Make room, or check the folder's rights."
            ) from error
        if earlier:
            yield f"An earlier run was ended by force ({Locked(earlier)}); this one goes on where it was."
        else:
            yield ""


@contextmanager
def computing(folder: Path, cluster: str) -> Iterator[None]:
    """Let the notebooks of a run take turns at computing in processes of this machine: each fills it.

    Parameters
    ----------
    folder : Path
        The run's.
    cluster : str
        Elsewhere than on this machine ("local") nobody has to wait.
    """
    if cluster != LOCAL:
        yield
        return
    with locked(folder / COMPUTING, "computing", wait=True, tell=sys.stdout):
        yield


def claim(folder: Path, study_file: Path) -> None:
    """Write which study file a folder belongs to.

    Raises
    ------
    StudyError
        If it is another study file's that still exists.
    """
    path, study_file = folder / RECORD, below_root(study_file)
    try:
        before = str(json.loads(path.read_text(encoding="utf-8"))["study_file"])
    except (OSError, ValueError, KeyError, TypeError):
        before = study_file  # no record, or a damaged one
    if before != study_file and (project_root() / before).is_file():
        raise StudyError(
            study_file,
            f"has the same `name` as {before}, whose results lie in {folder}.",
            "Give it a `name` of its own; or, to replace the other, move that folder away.",
        )
    write_atomically(path, json.dumps({"study_file": study_file}, indent=1).encode())
