"""What has arrived of a file whose download was cut, and whether a rest can be put behind it."""

from collections.abc import Mapping
from pathlib import Path

from medsam_nb.files import write_atomically


class Part:
    """The part of a file, beside its place.

    A rest is asked for only if a mixture of two versions would be noticed: by the file's hash, or because the
    server told its version when the part came, and can be asked for a rest of that one.

    Parameters
    ----------
    target : Path
        Where the file will lie.
    hashed : bool
        Whether its hash is compared afterwards.
    """

    def __init__(self, target: Path, hashed: bool) -> None:
        self.path, self._hashed = target.with_name(f"{target.name}.part"), hashed
        self._record = target.with_name(f"{target.name}.part.version")
        self._version = self._record.read_bytes().decode("latin-1") if self._record.is_file() else ""
        resumable = self.path.exists() and (hashed or bool(self._version))
        self.start = self.path.stat().st_size if resumable else 0

    @property
    def headers(self) -> dict[str, str]:
        """What to ask a server for."""
        if not self.start:
            return {}
        asked = {"Range": f"bytes={self.start}-"}
        return asked if self._hashed else asked | {"If-Range": self._version}

    def is_of(self, headers: Mapping[str, str]) -> bool:
        """Whether an answer is of the version that the part is of, as far as it says."""
        said = _version_of(headers)
        return self._hashed or not said or said == self._version

    def begin(self, headers: Mapping[str, str]) -> None:
        """Record the version of a file that is sent from its start."""
        said = _version_of(headers)
        if said and not self._hashed:
            write_atomically(self._record, said.encode("latin-1"))
        else:
            self._record.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the part and what is known of it."""
        self.path.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)


def _version_of(headers: Mapping[str, str]) -> str:
    """Return what tells versions of a file apart: a strong tag, else the time of its last change."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")
