"""Features of slices on disk, for slices beyond the memory's budget and for later runs."""

import hashlib
import io
import warnings
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from medsam_nb.files import write_atomically

MAGIC = b"medsam-nb features 1\n"
DIGEST_BYTES = 32


class FeatureFolder:
    """Features on disk, one file per slice; safe for several processes, and for a full disk.

    A file holds its key, the hash of its content, and the content; it appears all at once. A file that
    is damaged, whose key is not the one it is filed under, or whose content no slice of this model can have,
    is not used and is written anew.

    Parameters
    ----------
    folder : Path
    origin : str
        All that features depend on, but for the pixels: weights, preprocessing, arithmetic, package.
    shapes : list of tuple of int
        Of the levels of a slice's features.
    dtypes : set of torch.dtype
        That a level may have.
    most_bytes : int, optional
        What the folder may hold, whoever wrote it; files written longest ago go first. Each process that
        writes at the same time may exceed it by 32 files.
    """

    def __init__(
        self,
        folder: Path,
        origin: str,
        shapes: Sequence[tuple[int, ...]],
        dtypes: Collection[torch.dtype],
        most_bytes: int | None = None,
    ) -> None:
        self.folder, self.origin = Path(folder), origin
        self._shapes, self._dtypes = [torch.Size(shape) for shape in shapes], dtypes
        self._writable = True
        self._most, self._room = most_bytes, 0

    def key(self, picture: np.ndarray) -> str:
        """Return the key of a slice's features."""
        digest = hashlib.sha256(self.origin.encode())
        digest.update(f"{picture.dtype} {picture.shape}".encode())
        digest.update(np.ascontiguousarray(picture).tobytes())
        return digest.hexdigest()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.features"

    def read(self, key: str) -> list[torch.Tensor] | None:
        """Return stored features, or None where there are none that can be used."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            warnings.warn(f"{path}: cannot be read ({error}); the slice is encoded again.", stacklevel=3)
            return None
        levels = self._levels(key, data)
        if levels is None:
            warnings.warn(
                f"{path}: is damaged or not what its name says; the slice is encoded again.", stacklevel=3
            )
        return levels

    def _levels(self, key: str, data: bytes) -> list[torch.Tensor] | None:
        """Return what a file holds, or None unless it is features of the slice that its name says."""
        head = MAGIC + key.encode()
        content = memoryview(data)[len(head) + DIGEST_BYTES :]
        stored = data[len(head) : len(head) + DIGEST_BYTES]
        if not data.startswith(head) or hashlib.sha256(content).digest() != stored:
            return None
        try:
            levels = torch.load(io.BytesIO(content), weights_only=True)
        except Exception:  # of any kind: a file of another program, or of another version of this one
            return None
        of_slice = isinstance(levels, list) and all(isinstance(level, torch.Tensor) for level in levels)
        if not of_slice or [level.shape for level in levels] != self._shapes:
            return None
        usable = all(
            level.layout == torch.strided and level.dtype in self._dtypes and bool(level.isfinite().all())
            for level in levels
        )
        return levels if usable else None

    def _make_room(self, size: int) -> None:
        """Keep the folder within its limit once this many bytes are added; count anew only now and then."""
        if self._most is None:
            return
        self._room -= size
        if self._room >= 0:
            return
        files = []
        for path in self.folder.glob("*/*"):
            with suppress(FileNotFoundError):  # another process was quicker
                stored = path.stat()
                files.append((stored.st_mtime, stored.st_size, path))
        used = sum(length for _, length, _ in files)
        if used + size > self._most:
            for _, length, path in sorted(files):
                if used + size <= 0.9 * self._most:
                    break
                path.unlink(missing_ok=True)
                used -= length
        self._room = min(self._most - used - size, 32 * size)

    def write(self, key: str, levels: list[torch.Tensor]) -> None:
        """Store features; where that fails, say so once and go on without the folder."""
        if not self._writable or self._most == 0:
            return
        buffer = io.BytesIO()
        torch.save([level.cpu() for level in levels], buffer)  # keeps the layout, on which bits may depend
        content = buffer.getvalue()
        data = MAGIC + key.encode() + hashlib.sha256(content).digest() + content
        if self._most is not None and len(data) > self._most:
            return
        try:
            self._make_room(len(data))
            write_atomically(self._path(key), data)
        except OSError as error:
            self._writable = False
            warnings.warn(
                f"{self.folder}: features cannot be stored ({error}); they are kept in memory, within the "
                "budget, and encoded again beyond it. Make room, or give another folder.",
                stacklevel=3,
            )
