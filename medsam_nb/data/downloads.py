"""One file from an address, within limits: what a server may do wrong must not cost more than a message.

A server can be slow, endless, compressed, wrong about the length, or send a page where a file is meant. What
has arrived of the right file is kept in a part beside the target, and a later call asks for the rest only.
"""

import queue
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError, ReadTimeoutError

from medsam_nb.data.download_parts import Part
from medsam_nb.data.pages import page_of_beginning, page_of_type
from medsam_nb.errors import InputError

CHUNK_BYTES = 1 << 13  # what a cut connection can lose
SPARE_BYTES = 100 << 20  # kept free beside what is written
MOST_REDIRECTS = 10
NOT_KEPT = "What came was not kept."


@dataclass(frozen=True)
class Limits:
    """How long is waited, and how much is taken.

    Attributes
    ----------
    answer_s : until the server has begun to send a file, redirects included.
    silence_s : between two pieces.
    window_s, least_bytes_per_s : mean rate over any such time, at least.
    most_s : for the whole file, in one call.
    most_bytes : of a file whose size nothing states.
    """

    answer_s: float = 120
    silence_s: float = 60
    window_s: float = 120
    least_bytes_per_s: float = 1000
    most_s: float = 3 * 24 * 3600
    most_bytes: int = 1 << 40


LIMITS = Limits()


def require_space(target: Path, size: int) -> None:
    """Raise InputError where a file of a size would fill the disk."""
    free = shutil.disk_usage(target.parent).free
    if size and size + SPARE_BYTES > free:
        raise InputError(
            target,
            f"{size / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free.",
            "Free space or choose another folder.",
        )


class _Transfer:
    """An answer of a server and its bytes, read by a thread so that no trickle can hold the caller."""

    def __init__(self, url: str, headers: dict[str, str], limits: Limits) -> None:
        self._url, self._headers, self._limits = url, headers, limits
        self._pieces: queue.Queue = queue.Queue(maxsize=64)
        self._over = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        self.answer: requests.Response = self._next(limits.answer_s)

    def __enter__(self) -> "_Transfer":
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with suppress(Exception):  # it may have ended by itself; urllib3 before 2.3 has no way to stop a read
            self.answer.raw.shutdown()

    def _put(self, item: object) -> None:
        while not self._over.is_set():
            with suppress(queue.Full):
                self._pieces.put(item, timeout=1)
                return

    def _read(self) -> None:
        try:
            with requests.Session() as session, self._ask(session) as answer:
                self._put(answer)
                for piece in answer.raw.stream(CHUNK_BYTES, decode_content=False):
                    self._put(piece)
                    if self._over.is_set():
                        return
                self._put(b"")
        except Exception as error:
            self._put(error)

    def _ask(self, session: requests.Session) -> requests.Response:
        """Ask, and follow redirects without reading what comes with them."""
        url = self._url
        for _ in range(MOST_REDIRECTS + 1):
            answer = session.get(
                url, headers=self._headers, stream=True, timeout=self._limits.silence_s, allow_redirects=False
            )
            onwards = session.get_redirect_target(answer)
            if onwards is None:
                return answer
            answer.close()
            url = urljoin(url, onwards)
            if urlsplit(url).scheme not in ("http", "https"):
                raise requests.exceptions.InvalidSchema(f"it leads to {url!r}")
        raise requests.TooManyRedirects(f"it leads on more than {MOST_REDIRECTS} times")

    def _next(self, seconds: float) -> object:
        try:
            item = self._pieces.get(timeout=seconds)
        except queue.Empty:
            self._over.set()
            raise requests.Timeout(f"nothing came for {seconds:g} s") from None
        if isinstance(item, requests.Timeout | ReadTimeoutError):
            raise requests.Timeout(f"nothing came for {self._limits.silence_s:g} s") from item
        if isinstance(item, HTTPError):
            raise requests.ConnectionError("the connection was cut") from item
        if isinstance(item, Exception):
            raise item
        return item

    def __iter__(self) -> Iterator[bytes]:
        limits = self._limits
        began = window = time.monotonic()
        came = 0
        while piece := self._next(min(limits.silence_s, limits.window_s)):
            yield piece
            now, came = time.monotonic(), came + len(piece)
            if now - began > limits.most_s:
                raise requests.Timeout(f"it took more than {limits.most_s:g} s")
            if now - window > limits.window_s:
                if came / (now - window) < limits.least_bytes_per_s:
                    raise requests.Timeout(f"only {came / (now - window):.0f} bytes came per second")
                window, came = now, 0


def _whole_number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 19 else None


def download(
    url: str,
    target: Path,
    output: Path,
    *,
    size: int | None = None,
    hashed: bool = False,
    progress: bool = True,
    limits: Limits = LIMITS,
) -> None:
    """Bring a file to `output`; a part of it waits beside `target` if the connection ends too early.

    Parameters
    ----------
    url : str
    target : Path
        Where the file will lie; its part is called after it.
    output : Path
        What is written, whole or not at all.
    size : int, optional
        Of the file, if the manifest states it.
    hashed : bool
        Whether its hash is compared afterwards; without one, only what is surely whole is taken.
    progress : bool
    limits : Limits

    Raises
    ------
    requests.RequestException
        If the server does not answer, answers with an error, or the file comes too slowly or is cut.
    InputError
        If something else comes than the file; nothing of it is kept.
    """
    part = Part(target, hashed)
    headers = {"Accept-Encoding": "identity"} | part.headers
    with _Transfer(url, headers, limits) as transfer:
        begins, stated = _extent(transfer.answer, part)
        if begins is not None:
            expected = size or stated
            try:
                _require_the_file(url, transfer.answer, target, size, stated, hashed, limits)
                require_space(target, (expected or begins) - begins)
                if not begins:
                    part.begin(transfer.answer.headers)
                _write(url, transfer, target, part.path, begins, expected, limits, progress)
            except InputError:
                part.remove()
                raise
            if expected and part.path.stat().st_size < expected:
                raise requests.ConnectionError("the connection was cut")
    if begins is None:  # nothing is left to send, or the part is of another file: once more, from the start
        part.remove()
        download(url, target, output, size=size, hashed=hashed, progress=progress, limits=limits)
    else:  # moved, not copied: a part that turns out to have a wrong hash must not be resumed
        shutil.move(part.path, output)
        part.remove()


def _extent(answer: requests.Response, part: Part) -> tuple[int | None, int | None]:
    """Return where an answer begins in the file, and the size of the file by its own words.

    It begins nowhere (None) if a rest was asked for that the server does not have.

    Raises
    ------
    requests.RequestException
        If it is no answer with a file.
    """
    start, length = part.start, _whole_number(answer.headers.get("Content-Length"))
    if answer.status_code == 416 and start:
        return None, None
    answer.raise_for_status()
    if answer.status_code == 200:
        return 0, length
    if answer.status_code != 206 or not start:
        raise requests.HTTPError("an answer without a file", response=answer)
    unit, _, numbers = answer.headers.get("Content-Range", "").partition(" ")
    first, total = numbers.partition("-")[0], numbers.partition("/")[2]
    if unit != "bytes" or _whole_number(first) != start or not part.is_of(answer.headers):
        return None, None
    return start, _whole_number(total) or (None if length is None else start + length)


def _require_the_file(
    url: str,
    answer: requests.Response,
    target: Path,
    size: int | None,
    stated: int | None,
    hashed: bool,
    limits: Limits,
) -> None:
    """Raise InputError where the head of an answer says that this is not the file."""
    coding = answer.headers.get("Content-Encoding", "identity").lower()
    words = page_of_type(answer.headers.get("Content-Type", ""), target.suffix)
    if coding != "identity" and not hashed:
        raise InputError(url, f"comes compressed ({coding}), though plain was asked for.", NOT_KEPT)
    if size and stated and stated != size:
        raise InputError(url, f"has {stated:,} bytes; the manifest says {size:,}.", NOT_KEPT)
    if words and not hashed:
        raise _words_instead(url, words)
    chunked = "chunked" in answer.headers.get("Transfer-Encoding", "").lower()  # its end is marked
    if not (size or stated or hashed or chunked):
        raise InputError(
            url,
            "neither the server nor the manifest says how large it is, so that a cut would not be noticed.",
            "State `size_bytes` or `sha256` in the manifest.",
        )
    if (size or stated or 0) > limits.most_bytes:
        raise InputError(url, f"has {size or stated:,} bytes, more than is ever taken.", NOT_KEPT)


def _words_instead(url: str, words: str) -> InputError:
    return InputError(url, f"{words} comes in place of the file (a login?).", NOT_KEPT)


def _write(
    url: str,
    transfer: _Transfer,
    target: Path,
    part: Path,
    start: int,
    expected: int | None,
    limits: Limits,
    progress: bool,
) -> None:
    """Write what comes to the part, and no more than is expected."""
    most = expected or limits.most_bytes
    bar = tqdm(
        total=expected, initial=start, desc=target.name, unit="B", unit_scale=True, disable=not progress
    )
    written = checked = start
    with part.open("ab" if start else "wb") as file, bar:
        for piece in transfer:
            if written == 0 and (words := page_of_beginning(piece, target.suffix)):
                raise _words_instead(url, words)
            written += len(piece)
            if written > most:
                raise InputError(url, f"does not end after its {most:,} bytes.", NOT_KEPT)
            if written - checked > SPARE_BYTES // 2:
                require_space(part, 1)
                checked = written
            file.write(piece)
            bar.update(len(piece))
