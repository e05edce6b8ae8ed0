"""A long unit in parts: what is finished is kept, so that a run that is killed goes on within the unit.

A unit is stored only when it is whole. Until then the rows of each finished part lie in a file of their own,
in a folder named by the unit's key, below the store. A part that is damaged is noticed by its digest and
computed again. When the unit is whole its parts are removed. However a unit is divided, its table is bit for
bit the same. A unit that is not long is one part, and nothing is written for it.
"""

import io
import json
import re
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from medsam_nb.errors import StudyError
from medsam_nb.files import remove_made, write_atomically
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.table import COLUMNS, as_table

PARTS = "parts"  # the folder, below that of the store
NAME = re.compile(r"\d+_of_(\d+)\.part")
LOOK_EVERY_S = 2.0
SLICES_OF_A_PART = 32  # in 2D: all objects and prompts of a slice share one encoding, so they stay together
# In 3D: slices times designs. Designs that differ share little but the encodings, which a part that does not
# find them stored makes again: parts are large.
STEPS_OF_A_PART = 2048

# What a part is called, and the function that computes its rows.
Piece = tuple[str, Callable[[], list[dict]]]


class Unwritable(StudyError):
    """Results cannot be written: what else is computed could not be kept either."""


def unwritable(folder: Path, error: OSError) -> Unwritable:
    """Return the error that says so of a folder."""
    return Unwritable(
        error.filename2 or error.filename or folder,
        f"results cannot be written ({error.strerror or error}).",
        "Free space or choose another folder, and start again: what is stored is kept, the rest is computed.",
    )


class Parts:
    """The finished parts of one unit of work.

    Parameters
    ----------
    folder : Path
        Of the parts of all units: `PARTS`, below the store.
    run_key : str
        The digest of the unit's key.

    Attributes
    ----------
    found : int
        How many parts were there already.
    seconds_before : float
        How long these took.
    """

    def __init__(self, folder: Path, run_key: str) -> None:
        self.folder, self.run_key = Path(folder), run_key
        self.found, self.seconds_before = 0, 0.0

    def rows(self, pieces: Sequence[Piece]) -> pd.DataFrame:
        """Return the rows of all pieces as one table, computing those that are not there.

        Raises
        ------
        Unwritable
            If a part cannot be kept.
        """
        tables = [self._table(number, len(pieces), *piece) for number, piece in enumerate(pieces, 1)]
        return pd.concat(tables, ignore_index=True)

    def _table(self, number: int, total: int, name: str, compute: Callable[[], list[dict]]) -> pd.DataFrame:
        path = self.folder / self.run_key / f"{number:05d}_of_{total:05d}.part"
        said = {"run_key": self.run_key, "part": name}
        try:
            table, seconds = _read(path, said)
            self.found, self.seconds_before = self.found + 1, self.seconds_before + seconds
            return table
        except (FileNotFoundError, NotADirectoryError):
            pass
        except Exception as error:  # of any kind, as damage is
            warnings.warn(f"{path}: cannot be used ({error}). This part is computed again.", stacklevel=2)
        began = time.monotonic()
        table = as_table(compute())
        try:
            _write(path, table, said | {"seconds": round(time.monotonic() - began, 2)})
        except OSError as error:
            raise unwritable(self.folder, error) from error
        return table

    def remove(self) -> None:
        """Remove all parts, as far as that is possible: the unit is whole."""
        with suppress(OSError, ValueError):
            remove_made(self.folder / self.run_key, self.folder, ["*.part"])


def _write(path: Path, table: pd.DataFrame, said: dict) -> None:
    content = json.dumps(said, sort_keys=True).encode() + b"\n" + table.to_parquet(index=False)
    write_atomically(path, sha256(content).hexdigest().encode() + b"\n" + content)


def _read(path: Path, said: dict) -> tuple[pd.DataFrame, float]:
    """Return a part's rows, and how many seconds they took; ValueError unless it is what was written."""
    digest, _, content = path.read_bytes().partition(b"\n")
    if sha256(content).hexdigest().encode() != digest:
        raise ValueError("its SHA-256 is another")
    head, _, data = content.partition(b"\n")
    record = json.loads(head)
    seconds = record.pop("seconds")
    if record != said:
        raise ValueError("it is another part")
    table = pd.read_parquet(io.BytesIO(data))
    if list(table.columns) != list(COLUMNS):
        raise ValueError("it has other columns")
    return table, seconds


def all_rows(pieces: Sequence[Piece], parts: Parts | None) -> list[dict] | pd.DataFrame:
    """Return the rows of all pieces; those of a long unit, of several pieces, are kept piece by piece."""
    if parts is None or len(pieces) < 2:
        return [row for _, compute in pieces for row in compute()]
    return parts.rows(pieces)


def by_slices(truth: Mapping[str, np.ndarray], rows: Callable[[Collection[int]], list[dict]]) -> list[Piece]:
    """Return the parts of a unit of 2D: so many slices, with all objects on them."""
    filled = {index for mask in truth.values() for index in map(int, np.flatnonzero(mask.any((1, 2))))}
    return [(f"slices {block}", partial(rows, block)) for block in blocks(filled, SLICES_OF_A_PART)]


def propagated_together(
    reach: Mapping[str, int], designs: Sequence[Design]
) -> list[tuple[list[str], list[Design]]]:
    """Return the parts of a unit of 3D: objects and designs that are propagated together.

    All, if that is no more than `STEPS_OF_A_PART`; else as many objects as are; and an object that is more
    on its own is divided by the frame choice of its designs, as different ones share no memory.

    Parameters
    ----------
    reach : mapping of str to int
        Slices of each object.
    designs : sequence of Design
    """
    groups: list[tuple[list[str], list[Design]]] = []
    together: list[str] = []
    for name, slices in reach.items():
        if slices * len(designs) > STEPS_OF_A_PART:
            frames = dict.fromkeys(design.frame_choice for design in designs)
            groups += [([name], [one for one in designs if one.frame_choice == frame]) for frame in frames]
        elif (sum(reach[other] for other in together) + slices) * len(designs) > STEPS_OF_A_PART:
            groups.append((together, list(designs)))
            together = [name]
        else:
            together = [*together, name]
    return [*groups, (together, list(designs))] if together else groups


def blocks(indices: Collection[int], most: int) -> list[list[int]]:
    """Return indices in ascending order, divided into runs of at most so many.

    Examples
    --------
    >>> blocks({5, 1, 3}, 2)
    [[1, 3], [5]]
    """
    ordered = sorted(indices)
    return [ordered[start : start + most] for start in range(0, len(ordered), most)]


def share_done(folder: Path, run_key: str) -> float:
    """Return which share of a unit's parts is there, 0 to 1; 0 for a unit that is not divided."""
    try:
        named = [NAME.fullmatch(path.name) for path in (Path(folder) / run_key).iterdir()]
    except OSError:
        return 0.0
    totals = [int(found[1]) for found in named if found]
    return len(totals) / max(totals) if totals else 0.0


@contextmanager
def watched(folder: Path, under_way: Collection[str], show: Callable[[float], None]) -> Iterator[None]:
    """Within the block, tell every few seconds how many units the finished parts of others add up to.

    Parameters
    ----------
    folder : Path
        Of the parts of all units. They are looked for there, whoever computes them and where.
    under_way : collection of str
        Digests of the units that are not finished; it changes while they end.
    show : callable (float)
    """
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_EVERY_S):
            if Path(folder).is_dir():
                show(sum(share_done(folder, run_key) for run_key in tuple(under_way)))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
