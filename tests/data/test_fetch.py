"""Downloads from a server on this machine that also misbehaves, and from a mirror."""

import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from medsam_nb.data import downloads
from medsam_nb.data.fetch import MIRROR_VARIABLE, fetch, fetch_checkpoint, unpack
from medsam_nb.errors import CheckpointError, InputError
from medsam_nb.manifest.rows import Checkpoint, DataSet

CONTENT = bytes(range(256)) * 4000


def sha(data):
    return hashlib.sha256(data).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files` by path; `cut` bytes are sent of the first answer; ranges are honoured."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut, self.ranges, self.requests = {}, 0, True, []

    def url(self, path):
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        data = self.server.files.get(self.path.lstrip("/"))
        if data is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        end = self.server.cut or len(data)
        self.server.cut = 0
        self.wfile.write(data[start:end])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    running = Server()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


def row(files, **changes):
    fields = {
        "name": "set",
        "title": "A set",
        "modality": "CT",
        "dimension": 3,
        "objects": {"organ": [1]},
        "intensity": {"policy": "min_max"},
        "layout": {"name": "nifti_pairs"},
        "access": "open",
        "files": files,
    }
    return DataSet.model_validate(fields | changes)


def test_file_is_fetched_once(server, tmp_path):
    server.files["a/image.bin"] = CONTENT
    rows = row([{"url": server.url("a/image.bin"), "path": "sub/image.bin", "sha256": sha(CONTENT)}])
    assert fetch(rows, tmp_path, progress=False) == []
    assert (tmp_path / "set" / "sub" / "image.bin").read_bytes() == CONTENT
    fetch(rows, tmp_path, progress=False)
    assert len(server.requests) == 1


def test_file_without_hash_is_called_unverified(server, tmp_path):
    server.files["image.bin"] = CONTENT
    rows = row([{"url": server.url("image.bin"), "path": "image.bin"}])
    (remark,) = fetch(rows, tmp_path, progress=False)
    assert remark == f"image.bin: unverified (no known SHA-256; it had {sha(CONTENT)})"


@pytest.mark.parametrize("ranges", [True, False])
def test_cut_connection_goes_on_where_it_stopped(server, tmp_path, ranges):
    server.files["image.bin"], server.cut, server.ranges = CONTENT, 300_000, ranges
    rows = row([{"url": server.url("image.bin"), "path": "image.bin", "sha256": sha(CONTENT)}])
    with pytest.raises(InputError, match="Start again; what has arrived is kept"):
        fetch(rows, tmp_path, progress=False)
    assert not (tmp_path / "set" / "image.bin").exists()
    assert 0 < (tmp_path / "set" / "image.bin.part").stat().st_size <= 300_000
    fetch(rows, tmp_path, progress=False)
    assert (tmp_path / "set" / "image.bin").read_bytes() == CONTENT
    assert server.requests[1][1].startswith("bytes=")


def test_wrong_hash_is_not_kept(server, tmp_path):
    server.files["image.bin"] = CONTENT
    rows = row([{"url": server.url("image.bin"), "path": "image.bin", "sha256": "0" * 64}])
    with pytest.raises(InputError, match="its SHA-256 is not 0000"):
        fetch(rows, tmp_path, progress=False)
    assert [path.name for path in (tmp_path / "set").iterdir()] == []


def test_missing_file_and_silent_server(server, tmp_path):
    rows = row([{"url": server.url("none.bin"), "path": "none.bin"}])
    with pytest.raises(InputError, match=r"none\.bin: cannot be fetched \(HTTP 404\)"):
        fetch(rows, tmp_path, progress=False)
    closed = row([{"url": "http://127.0.0.1:9/x", "path": "x"}])
    with pytest.raises(InputError, match="cannot be fetched"):
        fetch(closed, tmp_path, progress=False)


def test_no_space(server, tmp_path):
    server.files["image.bin"] = CONTENT
    rows = row([{"url": server.url("image.bin"), "path": "image.bin", "size_bytes": 10**15}])
    with pytest.raises(InputError, match="GB are needed"):
        fetch(rows, tmp_path, progress=False)
    assert server.requests == []


def test_target_that_cannot_be_written(server, tmp_path):
    server.files["image.bin"] = CONTENT
    (tmp_path / "set").write_text("a file where the folder should be", encoding="utf-8")
    rows = row([{"url": server.url("image.bin"), "path": "image.bin"}])
    with pytest.raises(InputError, match="cannot be written"):
        fetch(rows, tmp_path, progress=False)


def test_data_behind_a_login_gives_the_steps(tmp_path):
    rows = row([], access="login", steps=["Log in.", "Unpack it."], home_page="https://example.org")
    with pytest.raises(InputError) as caught:
        fetch(rows, tmp_path, progress=False)
    for word in ("login", str(tmp_path / "set"), "https://example.org", "1. Log in.", "2. Unpack it."):
        assert word in str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "address"])
def test_mirror_takes_the_place_of_the_source(server, tmp_path, monkeypatch, kind):
    server.files["set/sub/image.bin"] = CONTENT
    (tmp_path / "mirror" / "set" / "sub").mkdir(parents=True)
    (tmp_path / "mirror" / "set" / "sub" / "image.bin").write_bytes(CONTENT)
    place = tmp_path / "mirror" if kind == "folder" else server.url("").rstrip("/")
    monkeypatch.setenv(MIRROR_VARIABLE, str(place))
    rows = row([{"url": "http://127.0.0.1:9/gone", "path": "sub/image.bin", "sha256": sha(CONTENT)}])
    fetch(rows, tmp_path / "raw", progress=False)
    assert (tmp_path / "raw" / "set" / "sub" / "image.bin").read_bytes() == CONTENT


def test_mirror_with_wrong_or_missing_file(tmp_path, monkeypatch):
    monkeypatch.setenv(MIRROR_VARIABLE, str(tmp_path / "mirror"))
    rows = row([{"url": "http://127.0.0.1:9/gone", "path": "image.bin", "sha256": "0" * 64}])
    with pytest.raises(InputError, match="is not in the mirror"):
        fetch(rows, tmp_path / "raw", progress=False)
    (tmp_path / "mirror" / "set").mkdir(parents=True)
    (tmp_path / "mirror" / "set" / "image.bin").write_bytes(CONTENT)
    with pytest.raises(InputError, match="nothing was copied"):
        fetch(rows, tmp_path / "raw", progress=False)


def zipped(members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return data.getvalue()


def test_archive_is_unpacked_once(server, tmp_path):
    server.files["set.zip"] = zipped({"images/a.txt": b"1", "labels/a.txt": b"2"})
    rows = row([{"url": server.url("set.zip"), "path": "set.zip", "unpack": True}])
    fetch(rows, tmp_path, progress=False)
    assert (tmp_path / "set" / "labels" / "a.txt").read_text(encoding="utf-8") == "2"
    (tmp_path / "set" / "labels" / "a.txt").write_text("edited", encoding="utf-8")
    fetch(rows, tmp_path, progress=False)
    assert (tmp_path / "set" / "labels" / "a.txt").read_text(encoding="utf-8") == "edited"


def tarred(*members):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as file:
        for member, content in members:
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return data.getvalue()


def link(target):
    member = tarfile.TarInfo("link")
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


def linked_zip():
    member = zipfile.ZipInfo("link")
    member.create_system, member.external_attr = 3, 0o120777 << 16
    return zipped({member: "/etc"})


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("up.zip", zipped({"good.txt": b"", "../../evil.txt": b"x"}), "outside the folder"),
        ("root.zip", zipped({"/evil.txt": b"x"}), "outside the folder"),
        ("link.zip", linked_zip(), "is a link"),
        ("up.tar", tarred((tarfile.TarInfo("../evil.txt"), b"x")), "outside the folder"),
        ("link.tar", tarred((link("/etc"), b"")), "is a link"),
        ("cut.zip", zipped({"good.txt": b"x" * 9999})[:-40], "neither a zip nor a tar"),
        ("text.zip", b"<html>log in first</html>", "neither a zip nor a tar"),
    ],
)
def test_bad_archives_leave_nothing(tmp_path, name, data, words):
    folder = tmp_path / "deep" / "set"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(data)
    with pytest.raises(InputError, match=words):
        unpack(folder / name, folder)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [name]


def test_archive_that_would_fill_the_disk(tmp_path, monkeypatch):
    (tmp_path / "set.zip").write_bytes(zipped({"a.txt": b"x" * 1000}))
    monkeypatch.setattr(downloads, "SPARE_BYTES", 10**18)
    with pytest.raises(InputError, match="GB are needed"):
        unpack(tmp_path / "set.zip", tmp_path)


def test_checkpoint(server, tmp_path):
    server.files["model.pt"] = CONTENT
    fields = {"name": "m", "family": "sam2", "config": "c", "file": "model.pt", "licence": "", "citation": ""}
    fields |= {"url": server.url("model.pt")}
    path = fetch_checkpoint(
        Checkpoint.model_validate(fields | {"sha256": sha(CONTENT)}), tmp_path, progress=False
    )
    assert path.read_bytes() == CONTENT
    with pytest.raises(CheckpointError, match="its SHA-256 is not 0000"):
        fetch_checkpoint(
            Checkpoint.model_validate(fields | {"sha256": "0" * 64}), tmp_path / "other", progress=False
        )
