"""Where a study's prompts come from: the truth, the truth with a shaking hand, or a file."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from medsam_nb.errors import InputError, StudyError
from medsam_nb.protocol.prompts import Prompt, jittered
from medsam_nb.protocol.prompts_file import PromptLine, read_prompts
from medsam_nb.protocol.prompts_placed import prompts_on
from medsam_nb.protocol.volume import Case
from medsam_nb.provenance import project_root

GIVEN = "given"  # prompt and frame choice of rows whose prompts come from a file
REMEDY = "Write truth, jittered:SHARE:REPEAT (such as jittered:0.1:0), or the path of a file of prompts."


@dataclass(frozen=True)
class PromptSource:
    """A source of prompts, as `parse_source` reads it.

    Attributes
    ----------
    kind : {"truth", "jittered", "file"}
    share : float
        Of "jittered"; see `prompts.jittered`.
    repeat : int
        Of "jittered": each repeat displaces every prompt anew.
    path : Path or None
        Of "file".
    sha256 : str
        Of the file's content when the study was planned.
    """

    kind: str = "truth"
    share: float = 0.0
    repeat: int = 0
    path: Path | None = None
    sha256: str = ""

    @property
    def name(self) -> str:
        """What stands in the table and in the key: for a file its name and its content's hash."""
        if self.kind == "jittered":
            return f"jittered:{self.share:g}:{self.repeat}"
        return f"file:{self.path.name}:{self.sha256[:12]}" if self.kind == "file" else self.kind

    def displaced(self, prompt: Prompt, mask: np.ndarray, parts: Sequence[object]) -> Prompt:
        """Return a prompt drawn from the truth as this source gives it.

        Parameters
        ----------
        prompt : Prompt
        mask : ndarray of bool, shape (y, x)
            The truth it was drawn from.
        parts : sequence
            What identifies the prompt: its `prompt_seed`, its kind, and its number among several calls.
        """
        if self.kind != "jittered" or self.share == 0:
            return prompt
        if prompt.mask is not None:
            raise InputError("prompt_source", "a mask cannot be jittered.", "Leave out designs with masks.")
        return jittered(prompt, mask, self.share, *parts, self.repeat)

    def given(self, case: Case) -> Mapping[tuple[str, int], Prompt]:
        """Return the prompts that the file has for a case, by object and slice.

        Raises
        ------
        InputError
            If the file has changed since the study was planned, or a prompt does not fit the case.
        """
        if _file_sha256(self.path) != self.sha256:
            raise InputError(self.path, "has changed since the study was planned.", "Plan the study again.")
        found = prompts_on(case, _lines(self.path, self.sha256), list(case.objects))
        if not found:
            raise InputError(
                self.path,
                f"holds no prompt for {case.data_set}/{case.case_id}.",
                "Prompt it, or leave it out.",
            )
        return found


def _file_sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror}).", REMEDY) from error


@lru_cache(maxsize=2)
def _lines(path: Path, _sha256: str) -> list[PromptLine]:
    return read_prompts(path)


def parse_source(text: str | Path | PromptSource) -> PromptSource:
    """Read "truth", "jittered:SHARE:REPEAT", or the path of a file of prompts.

    A path is looked for from here, and from the project's folder.

    Raises
    ------
    StudyError
        If it is none of these, or the share is not in [0, 0.5).

    Examples
    --------
    >>> parse_source("jittered:0.05:2")
    PromptSource(kind='jittered', share=0.05, repeat=2, path=None, sha256='')
    """
    if isinstance(text, PromptSource):
        return text
    name = str(text)
    if name == "truth":
        return PromptSource()
    if name.startswith("jittered"):
        try:
            _, share, repeat = name.split(":")
            source = PromptSource("jittered", float(share), int(repeat))
        except ValueError as error:
            raise StudyError("prompt_source", f"{name!r} is not understood.", REMEDY) from error
        if not 0 <= source.share < 0.5 or source.repeat < 0:
            raise StudyError(
                "prompt_source", f"{name!r}: a share is in [0, 0.5), a repeat at least 0.", REMEDY
            )
        return source
    path = Path(name)
    if not path.is_file() and not path.is_absolute():
        path = project_root() / path
    if not path.is_file():
        raise StudyError("prompt_source", f"{name!r} is neither a known source nor a file.", REMEDY)
    path = path.resolve()
    read_prompts(path)  # a damaged file is found before anything runs
    return PromptSource("file", path=path, sha256=_file_sha256(path))
