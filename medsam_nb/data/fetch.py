"""Downloads: files by their address or from a mirror, checked by hash, unpacked safely.

A download that was cut goes on where it stopped, if the server allows; what is there and whole is
not fetched again.
"""

import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import pooch
import requests
from tqdm import tqdm

from medsam_nb.errors import CheckpointError, InputError
from medsam_nb.files import unfinished
from medsam_nb.manifest.rows import Checkpoint, DataSet, File

MIRROR_VARIABLE = "MEDSAM_NB_MIRROR"  # a folder, or an address, with the files under the same paths
CHUNK_BYTES = 1 << 16  # what a cut connection can lose
SPARE_BYTES = 100 << 20  # kept free beside what is written
TIMEOUT_SECONDS = 60
# What Python's archive modules say of damaged content; BadGzipFile is an OSError, so these come first.
DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError
)  # fmt: skip


def fetch(row: DataSet, raw_root: Path, *, progress: bool = True) -> list[str]:
    """Bring a data set's files to its folder below the raw root.

    Returns
    -------
    list of str
        Remarks: files without a known hash.

    Raises
    ------
    InputError
        If a file cannot be had, is not what the manifest says, or an archive is unsafe; and, with
        the steps to do by hand, for data behind a login or an agreement.
    """
    folder = Path(raw_root) / row.raw_folder
    if row.access == "embedded":
        return []
    if not row.files:
        steps = "".join(f"\n  {number}. {step}" for number, step in enumerate(row.steps, 1))
        raise InputError(
            row.name,
            f"cannot be fetched by a program (access: {row.access}); the files are expected in {folder}.",
            f"Do by hand, from {row.home_page or 'its source'}:{steps or ' put them there.'}",
        )
    remarks = []
    for file in row.files:
        _fetch_file(file, folder / file.path, f"{row.raw_folder}/{file.path}", progress)
        if file.sha256 is None:
            remarks.append(f"{file.path}: unverified (no known SHA-256)")
        if file.unpack:
            unpack(folder / file.path, folder)
    return remarks


def fetch_checkpoint(row: Checkpoint, weights_dir: Path, *, progress: bool = True) -> Path:
    """Bring a model's weights to a folder and return the file.

    Raises
    ------
    CheckpointError
        If they cannot be had or have another hash than the manifest says.
    """
    if row.embedded:
        raise CheckpointError(row.name, "is part of the package.", "It need not be fetched.")
    target = Path(weights_dir) / row.file
    file = File(url=row.url, path=row.file, sha256=row.sha256, size_bytes=row.size_bytes)
    try:
        _fetch_file(file, target, f"checkpoints/{row.file}", progress)
    except InputError as error:
        raise CheckpointError(error.item, error.problem, error.remedy) from error
    return target


def _fetch_file(file: File, target: Path, mirror_path: str, progress: bool) -> None:
    """Fetch one file from the mirror, if one is named, or from its address."""
    mirror = os.environ.get(MIRROR_VARIABLE, "").rstrip("/")
    known_hash = f"sha256:{file.sha256}" if file.sha256 else None
    if target.is_file() and (known_hash is None or _has_hash(target, file.sha256)):
        return
    remote = mirror.startswith(("http://", "https://"))
    url = f"{mirror}/{mirror_path}" if remote else file.url
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _require_space(target, file.size_bytes or 0)
        if mirror and not remote:
            _copy(Path(mirror) / mirror_path, target, file.sha256)
            return
        pooch.get_logger().setLevel("WARNING")  # the bar says what is happening
        target.unlink(missing_ok=True)  # it is not what the manifest says, or it would have been kept
        pooch.retrieve(
            url, known_hash, fname=target.name, path=target.parent, downloader=_Resuming(target, progress)
        )
    except requests.RequestException as error:
        raise InputError(url, f"cannot be fetched ({_reason(error)}).", _remedy(error)) from error
    except ValueError as error:  # pooch's word for a wrong hash
        raise InputError(
            url,
            f"its SHA-256 is not {file.sha256}, as the manifest says; it was not kept.",
            "Try again; if it stays so, the file has changed at its source.",
        ) from error
    except OSError as error:
        raise InputError(
            target, f"cannot be written ({error.strerror or error}).", "Free space or choose another folder."
        ) from error


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"HTTP {error.response.status_code}"
    return " ".join(str(error).split())[:200]


def _remedy(error: requests.RequestException) -> str:
    if error.response is not None and error.response.status_code in (401, 403, 404, 410):
        return "Its address may have changed: see the data set's home page."
    return "Start again; what has arrived is kept."


def _has_hash(path: Path, sha256: str) -> bool:
    return pooch.file_hash(str(path), alg="sha256") == sha256


def _copy(source: Path, target: Path, sha256: str | None) -> None:
    """Copy a file of a mirror folder, whole or not at all."""
    if not source.is_file():
        raise InputError(source, "is not in the mirror.", f"Unset {MIRROR_VARIABLE}, or complete the mirror.")
    if sha256 and not _has_hash(source, sha256):
        raise InputError(
            source,
            f"its SHA-256 is not {sha256}, as the manifest says.",
            "Mend the mirror; nothing was copied.",
        )
    partial = unfinished(target.parent)
    try:
        shutil.copyfile(source, partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _require_space(target: Path, size: int) -> None:
    """Raise InputError where a file of a size would fill the disk."""
    free = shutil.disk_usage(target.parent).free
    if size and size + SPARE_BYTES > free:
        raise InputError(
            target,
            f"{size / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free.",
            "Free space or choose another folder.",
        )


class _Resuming:
    """A downloader for pooch that keeps what arrived and asks only for the rest."""

    def __init__(self, target: Path, progress: bool) -> None:
        self.target, self.progress = target, progress
        self.part = target.with_name(f"{target.name}.part")

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        start = self.part.stat().st_size if self.part.exists() else 0
        headers = {"Range": f"bytes={start}-", "Accept-Encoding": "identity"} if start else {}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as answer:
            if answer.status_code == 416:  # nothing is left to send, or the part is of another file
                self.part.unlink()
                return self(url, output_file, _pooch)
            answer.raise_for_status()
            start = start if answer.status_code == 206 else 0
            length = int(answer.headers.get("Content-Length", 0))
            _require_space(self.target, length)
            bar = tqdm(
                total=start + length or None,
                initial=start,
                desc=self.target.name,
                unit="B",
                unit_scale=True,
                disable=not self.progress,
            )
            with open(self.part, "ab" if start else "wb") as file, bar:
                for chunk in answer.iter_content(CHUNK_BYTES):
                    file.write(chunk)
                    bar.update(len(chunk))
            if length and self.part.stat().st_size < start + length:
                raise requests.ConnectionError("the connection was cut")
        # Moved, not copied: a part that turns out to have a wrong hash must not be resumed.
        shutil.move(self.part, output_file)
        return None


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive, unless that was done; all of it or nothing is refused.

    Raises
    ------
    InputError
        If a member is a link, a device, or would lie outside the folder; if the archive is damaged; if
        the folder cannot be written.
    """
    done = archive.with_name(f".{archive.name}.unpacked")
    stamp = f"{archive.stat().st_size} {archive.stat().st_mtime_ns}"
    if done.exists() and done.read_text(encoding="utf-8") == stamp:
        return
    partial = None
    try:
        partial = unfinished(folder)
        partial.mkdir()
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, partial)
        elif tarfile.is_tarfile(archive):
            _unpack_tar(archive, partial)
        else:
            raise InputError(archive, "is neither a zip nor a tar archive.", "Delete it and fetch it again.")
        shutil.copytree(partial, folder, dirs_exist_ok=True, copy_function=os.replace)
        done.write_text(stamp, encoding="utf-8")
    except DAMAGED as error:
        raise InputError(archive, f"is damaged ({error}).", "Delete it and fetch it again.") from error
    except OSError as error:
        raise InputError(
            folder, f"cannot be written ({error.strerror or error}).", "Free space or choose another folder."
        ) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _require_safe(archive: Path, name: str, plain: bool) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        raise InputError(
            archive, f"the member {name!r} would lie outside the folder.", "Do not use this archive."
        )
    if not plain:
        raise InputError(archive, f"the member {name!r} is a link or a device.", "Do not use this archive.")


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            _require_safe(archive, member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
        _require_space(folder, sum(member.file_size for member in file.infolist()))
        file.extractall(folder)


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as file:
        members = file.getmembers()
        for member in members:
            _require_safe(archive, member.name, member.isfile() or member.isdir())
        _require_space(folder, sum(member.size for member in members))
        file.extractall(folder, filter="data")
