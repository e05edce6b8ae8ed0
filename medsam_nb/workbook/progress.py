"""What a running notebook shows in the terminal: its progress bars, and nothing else that it prints.

All that a notebook prints stands in its executed copy. A bar is a line that is written over; where the output
is no terminal (a log file) it would be thousands of lines, so that one a minute is written instead.
"""

import io
import os
import sys
import threading
import time
from typing import TextIO

MINUTE_S = 60.0
CLEARED = "\r\033[K"
_one_at_a_time = threading.Lock()


class Progress(io.TextIOBase):
    """A stream that takes what a notebook prints and passes on its progress.

    Parameters
    ----------
    name : str
        Of the notebook, before its lines in a log file.
    stream : TextIO, optional
        Where to; standard output, unless given.
    bars_only : bool
        Whether all else is left to the executed copy; what goes to standard error (warnings) is not.
    """

    def __init__(self, name: str, stream: TextIO | None = None, *, bars_only: bool = True) -> None:
        self.name, self.bars_only = name, bars_only
        self.stream = stream or sys.stdout
        self._shown = time.monotonic()

    def writable(self) -> bool:
        """Whether it can be written to."""
        return True

    def write(self, text: str) -> int:
        """Take what was printed; pass on the last state of a bar."""
        if "\r" in text:
            state = text.rsplit("\r", 1)[1].rstrip("\n")
            if state.strip():
                self._show(state)
        elif not self.bars_only and text.strip():
            _write(text, self.stream)
        return len(text)

    def _show(self, state: str) -> None:
        if self.stream.isatty():
            _write(f"{CLEARED}{state}", self.stream)
        elif time.monotonic() - self._shown >= MINUTE_S:
            self._shown = time.monotonic()
            _write(f"    {self.name}: {state}\n", self.stream)


def say(text: str) -> None:
    """Print a line, in place of a bar that stands there."""
    _write(f"{CLEARED if sys.stdout.isatty() else ''}{text}\n", sys.stdout)


def _write(text: str, stream: TextIO) -> None:
    """Write, if anyone is left to read: Ctrl-C also ends what the output is piped into."""
    with _one_at_a_time:
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # for all that follows, too


def words(seconds: float) -> str:
    """Return a duration as it is read.

    Examples
    --------
    >>> words(7.4), words(134), words(4000)
    ('7 s', '2 min 14 s', '1 h 6 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
