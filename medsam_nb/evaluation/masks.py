"""Masks that a run keeps, bit-packed: figures and the explorer read them in place of a network."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np

from medsam_nb.errors import InputError
from medsam_nb.files import write_atomically


class MaskStore:
    """Predicted masks of a run, one compressed file each, 8 voxels a byte.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def path(self, **key: str) -> Path:
        """Return where the mask of a key lies; the key's parts are plain text."""
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
        return self.folder / f"{digest}.npz"

    def write(self, mask: np.ndarray, **key: str) -> Path:
        """Store a mask, bool (z, y, x), under what tells it apart, such as run_key, object and design."""
        buffer = io.BytesIO()
        text = json.dumps(key, sort_keys=True)
        np.savez_compressed(buffer, packed=np.packbits(mask), shape=np.array(mask.shape), key=np.array(text))
        write_atomically(self.path(**key), buffer.getvalue())
        return self.path(**key)

    def read(self, **key: str) -> np.ndarray | None:
        """Return a stored mask, bool (z, y, x); None if there is none.

        Raises
        ------
        InputError
            If the file is damaged or not of this key.
        """
        path = self.path(**key)
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as stored:
                found, shape = json.loads(str(stored["key"])), tuple(stored["shape"])
                mask = np.unpackbits(stored["packed"], count=int(np.prod(shape))).reshape(shape).astype(bool)
        except Exception as error:  # zip, NumPy and JSON have their own kinds
            raise InputError(
                path, f"cannot be read ({error}).", "Delete it; it is computed again."
            ) from error
        if found != key:
            raise InputError(path, "is of another key.", "Delete it; it is computed again.")
        return mask
