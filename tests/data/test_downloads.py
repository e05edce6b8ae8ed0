"""Servers that do wrong, on this machine: each is stopped quickly, by name, and no file comes of it."""

import gzip
import hashlib
import socket
import threading
import time
import zlib
from contextlib import suppress

import pytest
from helpers.rows import download_row

from medsam_nb.data.downloads import Limits
from medsam_nb.data.fetch import MIRROR_VARIABLE, fetch
from medsam_nb.errors import InputError
from medsam_nb.provenance import recorded_sha256

CONTENT = bytes(range(1, 256)) * 400
SIZE = len(CONTENT)
LIMITS = Limits(
    answer_s=1.5, silence_s=0.7, window_s=0.7, least_bytes_per_s=20_000, most_s=5, most_bytes=1 << 20
)


def answer(*lines, body=b"", status="200 OK"):
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode() + body


def whole(*lines, body=CONTENT, status="200 OK"):
    return answer(f"Content-Length: {len(body)}", *lines, body=body, status=status)


def chunk(data):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


CHUNKED = answer("Transfer-Encoding: chunked")


def dripping(data, *, at_once=0, pause=0.05, piece=1):
    """Send a beginning at once and the rest in drops."""

    def behave(connection, stop):
        connection.sendall(data[:at_once])
        for start in range(at_once, len(data), piece):
            if stop.wait(pause):
                return
            connection.sendall(data[start : start + piece])

    return behave


def endless(beginning, data):
    def behave(connection, stop):
        connection.sendall(beginning)
        while not stop.is_set():
            connection.sendall(data)

    return behave


def silent(data=b""):
    def behave(connection, stop):
        connection.sendall(data)
        stop.wait(30)

    return behave


def reset(data):
    def behave(connection, stop):
        connection.sendall(data)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    return behave


BOMB = gzip.compress(bytes(50 << 20), 9)
PAGE = b"<!DOCTYPE html><html><title>Log in</title></html>"
CUT = r"cannot be fetched \(the connection was cut\)|cannot be fetched \(.*broken"
SLOW = r"cannot be fetched \((nothing came|only \d+ bytes came|it took more)"
CIRCLE = r"cannot be fetched \(it leads on more than 10 times"
# What the server does, and what is said of it.
SERVERS = {
    "no answer": (silent(), SLOW),
    "half a head": (silent(b"HTTP/1.1 200 OK\r\nContent-"), SLOW),
    "a dripping head": (dripping(answer("X: " + "y" * 500), at_once=9), SLOW),
    "an endless head": (endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), "cannot be fetched"),
    "an endless line of a head": (endless(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 999), "cannot be fetched"),
    "silence after the head": (silent(whole(body=CONTENT)[:60]), SLOW),
    "silence in the middle": (silent(whole()[:50_000]), SLOW),
    "drops": (dripping(whole(), at_once=30_000), SLOW),
    "slow pieces": (dripping(whole(), at_once=20_000, pause=0.2, piece=1000), SLOW),
    "dripping sizes of chunks": (dripping(CHUNKED + b"0" * 999, at_once=len(CHUNKED)), SLOW),
    "an endless file": (endless(answer("Content-Type: a/b"), CONTENT), "neither the server nor the manifest"),
    "endless chunks": (endless(CHUNKED, chunk(CONTENT)), "does not end after its 1,048,576 bytes"),
    "an endless chunk": (endless(CHUNKED + b"fffffffff\r\n", CONTENT), "does not end after its 1,048,576"),
    "a size of a terabyte": (silent(answer(f"Content-Length: {1 << 40}")), "more than is ever taken"),
    "gzip": (whole("Content-Encoding: gzip", body=BOMB), "comes compressed .gzip."),
    "deflate": (whole("Content-Encoding: deflate", body=zlib.compress(CONTENT)), "comes compressed"),
    "an unknown coding": (whole("Content-Encoding: br"), "comes compressed .br."),
    "coded twice": (whole("Content-Encoding: gzip, gzip", body=gzip.compress(BOMB)), "comes compressed"),
    "a web page": (whole("Content-Type: text/html; charset=utf-8", body=PAGE), "a web page comes in place"),
    "a web page that says otherwise": (whole("Content-Type: application/zip", body=PAGE), "a web page comes"),
    "a web page after a mark and blanks": (whole(body=b"\xef\xbb\xbf \n" + PAGE.lower()), "a web page comes"),
    "a web page in chunks": (CHUNKED + chunk(PAGE) + chunk(b""), "a web page comes"),
    "a message in JSON": (whole("Content-Type: application/json", body=b'{"error": 1}'), "a message in JSON"),
    "JSON that says otherwise": (whole(body=b'{"message": "Log in"}'), "a message in JSON comes"),
    "a message in XML": (whole("Content-Type: text/xml", body=b"<Error/>"), "a message in XML comes"),
    "XML that says otherwise": (whole(body=b"<?xml version='1.0'?><Error/>"), "a message in XML comes"),
    "fewer bytes than it says": (whole()[:-500], CUT),
    "nothing of what it says": (answer(f"Content-Length: {SIZE}"), CUT),
    "a chunk cut": (CHUNKED + chunk(CONTENT)[:-500], CUT),
    "no last chunk": (CHUNKED + chunk(CONTENT), CUT),
    "a chunk of a wrong size": (CHUNKED + b"zz\r\n" + CONTENT, CUT),
    "a reset": (reset(whole()[:50_000]), CUT),
    "no length": (answer(body=CONTENT), "neither the server nor the manifest says how large"),
    "a length in words": (answer("Content-Length: many", body=CONTENT), "cannot be|neither the server"),
    "a negative length": (answer("Content-Length: -5", body=CONTENT), "cannot be fetched|neither the server"),
    "a length of 400 digits": (answer("Content-Length: " + "9" * 400, body=CONTENT), "cannot be|neither the"),
    "two lengths": (answer("Content-Length: 5", "Content-Length: 9", body=CONTENT), "cannot be|neither the"),
    "an empty file": (whole(body=b""), "neither the server nor the manifest|empty"),
    "a circle": (answer("Location: /file.bin", "Connection: close", status="302 Found"), CIRCLE),
    "a circle that grows": (answer("Location: x/file.bin", status="307 Found"), CIRCLE),
    "a way to a file": (answer("Location: file:///etc/passwd", status="302 Found"), "it leads to 'file:///etc"),
    "a way to ftp": (answer("Location: ftp://127.0.0.1/x", status="301 Moved"), "it leads to 'ftp:"),
    "a way to nowhere": (answer("Location: http://", status="302 Found"), "cannot be fetched"),
    "a way without an end": (answer(status="302 Found"), "HTTP 302"),
    "a way with endless words": (
        endless(answer("Location: /file.bin", status="302 Found"), CONTENT),
        f"{CIRCLE}|{SLOW}",
    ),
    "no content": (answer(status="204 No Content"), "HTTP 204"),
    "later": (whole(status="202 Accepted", body=b"soon"), "HTTP 202"),
    "a part that was not asked for": (whole("Content-Range: bytes 5-9/10", status="206 Part"), "HTTP 206"),
    "nothing to send": (answer(status="416 Range Not Satisfiable"), "HTTP 416"),
    "a login": (whole(status="401 Unauthorized", body=PAGE), "HTTP 401.*see the home page"),
    "forbidden": (whole(status="403 Forbidden", body=PAGE), "HTTP 403"),
    "gone": (endless(answer(status="410 Gone"), CONTENT), "HTTP 410"),
    "too often": (whole(status="429 Too Many Requests"), "HTTP 429"),
    "broken": (whole(status="500 Internal Server Error"), "HTTP 500"),
    "overloaded": (silent(answer(status="503 Unavailable")), "HTTP 503"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n" + CONTENT, "cannot be fetched"),
    "bytes": (CONTENT, "cannot be fetched"),
    "nothing at all": (b"", "cannot be fetched"),
    "a status in words": (b"HTTP/1.1 fine\r\n\r\n", "cannot be fetched"),
}  # fmt: skip


class Server:
    """Does one thing to every connection; knows what it was asked."""

    def __init__(self, behaviour):
        self.behaviour, self.asked, self.stop = behaviour, [], threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self):
        while not self.stop.is_set():
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            thread.start()
            self.threads.append(thread)

    def _serve(self, connection):
        with suppress(OSError), connection:
            request = b""
            while b"\r\n\r\n" not in request:
                piece = connection.recv(4096)
                if not piece:
                    return
                request += piece
            self.asked.append(request.decode("latin-1"))
            behave = self.behaviour
            if callable(behave):
                behave(connection, self.stop)
            else:
                connection.sendall(behave)
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(0.2)
                connection.recv(1)

    def close(self):
        self.stop.set()
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for thread in self.threads:
            thread.join(5)


@pytest.fixture
def serving(monkeypatch):
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    running = []

    def start(behaviour):
        running.append(Server(behaviour))
        return running[-1]

    yield start
    for server in running:
        server.close()


def row(server, **file):
    fields = {"url": f"http://127.0.0.1:{server.port}/file.bin", "path": "file.bin"} | file
    return download_row([fields])


def names(tmp_path):
    return sorted(path.name for path in (tmp_path / "set").glob("*"))


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_does_wrong_is_stopped_and_named(name, serving, tmp_path):
    behaviour, words = SERVERS[name]
    server = serving(behaviour)
    started = time.monotonic()
    with pytest.raises(InputError, match=words) as caught:
        fetch(row(server), tmp_path, progress=False, limits=LIMITS)
    assert time.monotonic() - started < 8
    assert f"http://127.0.0.1:{server.port}/file.bin" in str(caught.value) and len(str(caught.value)) < 1000
    kept = "what has arrived is kept" in str(caught.value)
    assert names(tmp_path) in ([], ["file.bin.part"] if kept else [])


@pytest.mark.parametrize(
    ("file", "behaviour", "words"),
    [
        ({"size_bytes": SIZE + 1}, whole(), "has 102,000 bytes; the manifest says 102,001"),
        ({"size_bytes": SIZE - 1}, whole(), "has 102,000 bytes; the manifest says 101,999"),
        ({"size_bytes": SIZE - 1}, answer(body=CONTENT), "does not end after its 101,999 bytes"),
        ({"size_bytes": SIZE + 1}, answer(body=CONTENT), "the connection was cut"),
        ({"size_bytes": SIZE}, CHUNKED + chunk(CONTENT[:-1]) + chunk(b""), "the connection was cut"),
        ({"sha256": "0" * 64}, whole(), "its SHA-256 is not 0000"),
        ({"sha256": "0" * 64}, whole("Content-Encoding: gzip", body=BOMB), "its SHA-256 is not 0000"),
        ({"sha256": "0" * 64}, whole("Content-Type: text/html", body=PAGE), "a web page comes"),
        ({"sha256": "0" * 64}, endless(answer(), CONTENT), "does not end after its 1,048,576 bytes"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_the_manifests_is_not_kept(file, behaviour, words, serving, tmp_path):
    with pytest.raises(InputError, match=words):
        fetch(row(serving(behaviour), **file), tmp_path, progress=False, limits=LIMITS)
    assert "file.bin" not in names(tmp_path)


@pytest.mark.parametrize(
    "behaviour", [whole(), CHUNKED + chunk(CONTENT[:9]) + chunk(CONTENT[9:]) + chunk(b"")]
)
@pytest.mark.parametrize("file", [{}, {"size_bytes": SIZE}, {"sha256": hashlib.sha256(CONTENT).hexdigest()}])
def test_a_good_server_is_believed(file, behaviour, serving, tmp_path):
    server = serving(behaviour)
    remarks = fetch(row(server, **file), tmp_path, progress=False, limits=LIMITS)
    assert (tmp_path / "set" / "file.bin").read_bytes() == CONTENT
    assert "Accept-Encoding: identity" in server.asked[0]
    assert bool(remarks) != ("sha256" in file)
    assert names(tmp_path) == (["file.bin"] if "sha256" in file else [".file.bin.sha256", "file.bin"])


def test_a_file_without_a_hash_is_held_to_its_first_download(serving, tmp_path):
    wanted = row(serving(whole()))
    (first,) = fetch(wanted, tmp_path, progress=False, limits=LIMITS)
    place = tmp_path / "set" / "file.bin"
    assert "unverified" in first and recorded_sha256(place) == hashlib.sha256(CONTENT).hexdigest()
    place.write_bytes(CONTENT[::-1])
    with pytest.raises(InputError, match="has changed since its first download"):
        fetch(wanted, tmp_path, progress=False, limits=LIMITS)
    place.unlink()
    with pytest.raises(InputError, match="has changed at its source.*delete .*file.bin.sha256"):
        fetch(row(serving(whole(body=CONTENT[::-1]))), tmp_path, progress=False, limits=LIMITS)
    assert names(tmp_path) == [".file.bin.sha256"]
    fetch(wanted, tmp_path, progress=False, limits=LIMITS)
    assert place.read_bytes() == CONTENT
    (tmp_path / "set" / ".file.bin.sha256").write_text("no hash", encoding="utf-8")
    with pytest.raises(InputError, match="holds no SHA-256"):
        fetch(wanted, tmp_path, progress=False, limits=LIMITS)


def test_a_file_put_by_hand_must_be_as_large_as_stated(serving, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "file.bin").write_bytes(b"short")
    with pytest.raises(InputError, match="has 5 bytes; the manifest says 102,000"):
        fetch(row(serving(whole()), size_bytes=SIZE), tmp_path, progress=False, limits=LIMITS)


@pytest.mark.parametrize(
    ("rest", "what"),
    [
        (whole("Content-Range: bytes 7-9/102000", status="206 Part"), "another part"),
        (whole("Content-Range: none", status="206 Part"), "a part of no kind"),
        (answer(status="416 Range Not Satisfiable"), "no part"),
    ],
)
def test_a_rest_that_is_none_is_asked_for_once_more_from_the_start(rest, what, serving, tmp_path):
    def behave(connection, stop):
        connection.sendall(rest if "Range:" in server.asked[-1] else whole())

    server = serving(behave)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "file.bin.part").write_bytes(CONTENT[:1000])
    known = {"sha256": hashlib.sha256(CONTENT).hexdigest()}
    fetch(row(server, **known), tmp_path, progress=False, limits=LIMITS)
    assert (tmp_path / "set" / "file.bin").read_bytes() == CONTENT and len(server.asked) == 2


def rest_of(content, start, tag):
    span = f"Content-Range: bytes {start}-{len(content) - 1}/{len(content)}"
    return whole(span, f'ETag: "{tag}"', body=content[start:], status="206 Part")


@pytest.mark.parametrize(
    ("tag", "later", "asked"),
    [("a", "a", ["Range"]), ("a", "b", ["Range", None]), ("", "", [None])],
    ids=["the same version", "another version", "no version"],
)
def test_without_a_hash_a_rest_is_taken_only_of_the_same_version(tag, later, asked, serving, tmp_path):
    """The file changes at its source: what is kept is one version of it, never a mixture of two."""
    other = CONTENT[::-1]

    def behave(connection, stop):
        if len(server.asked) == 1:
            connection.sendall(whole(*([f'ETag: "{tag}"'] if tag else []))[:60_000])
        elif "\nRange:" in server.asked[-1]:
            content = CONTENT if later == tag else other
            connection.sendall(
                rest_of(content, int(server.asked[-1].split("bytes=")[1].split("-")[0]), later)
            )
        else:
            connection.sendall(whole(body=CONTENT if later == tag and tag else other))

    server = serving(behave)
    with pytest.raises(InputError, match="cut"):
        fetch(row(server), tmp_path, progress=False, limits=LIMITS)
    fetch(row(server), tmp_path, progress=False, limits=LIMITS)
    assert (tmp_path / "set" / "file.bin").read_bytes() == (CONTENT if later == tag and tag else other)
    assert ["Range" if "\nRange:" in one else None for one in server.asked[1:]] == asked
    assert names(tmp_path) == [".file.bin.sha256", "file.bin"]


def test_without_network_the_error_says_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    unreachable = type("Closed", (), {"port": port})
    with pytest.raises(InputError) as caught:
        fetch(row(unreachable), tmp_path, progress=False, limits=LIMITS)
    for words in (
        f"put the file at {tmp_path / 'set' / 'file.bin'} by hand",
        MIRROR_VARIABLE,
        "as set/file.bin",
    ):
        assert words in str(caught.value)
