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
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath

import pooch
import requests

from medsam_nb.data.downloads import LIMITS, Limits, download, require_space
from medsam_nb.errors import CheckpointError, InputError
from medsam_nb.files import remove_made, unfinished
from medsam_nb.manifest.fine_tuned import TRAIN_AGAIN
from medsam_nb.manifest.rows import Checkpoint, DataSet, File
from medsam_nb.provenance import file_sha256, record_sha256, recorded_sha256

MIRROR_VARIABLE = "MEDSAM_NB_MIRROR"  # a folder, or an address, with the files under the same paths
# What Python's archive modules say of damaged content; BadGzipFile is an OSError, so these come first.
DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError
)  # fmt: skip


def fetch(row: DataSet, raw_root: Path, *, progress: bool = True, limits: Limits = LIMITS) -> list[str]:
    """Bring a data set's files to its folder below the raw root.

    A file without a hash in the manifest is held to the size that it states, and from its first download on
    to the hash that it had then, which is recorded beside it.

    Returns
    -------
    list of str
        Remarks: files that no hash of the manifest vouches for.

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
        target = folder / file.path
        _fetch_file(file, target, f"{row.raw_folder}/{file.path}", progress, limits)
        if file.sha256 is None:
            remarks.append(f"{file.path}: unverified (no known SHA-256; it had {recorded_sha256(target)})")
        if file.unpack:
            unpack(folder / file.path, folder)
    return remarks


def fetch_checkpoint(
    row: Checkpoint, weights_dir: Path, *, progress: bool = True, limits: Limits = LIMITS
) -> Path:
    """Bring a model's weights to a folder and return the file.

    Raises
    ------
    CheckpointError
        If they cannot be had or have another hash than the manifest says.
    """
    if row.embedded:
        raise CheckpointError(row.name, "is part of the package.", "It need not be fetched.")
    if row.fine_tuned:
        raise CheckpointError(row.name, "was made here, by fine-tuning.", TRAIN_AGAIN)
    target = Path(weights_dir) / row.file
    file = File(url=row.url, path=row.file, sha256=row.sha256, size_bytes=row.size_bytes)
    try:
        _fetch_file(file, target, f"checkpoints/{row.file}", progress, limits)
    except InputError as error:
        raise CheckpointError(error.item, error.problem, error.remedy) from error
    return target


def _fetch_file(file: File, target: Path, mirror_path: str, progress: bool, limits: Limits) -> None:
    """Fetch one file from the mirror, if one is named, or from its address."""
    mirror = os.environ.get(MIRROR_VARIABLE, "").rstrip("/")
    known_hash = f"sha256:{file.sha256}" if file.sha256 else None
    remote = mirror.startswith(("http://", "https://"))
    url = f"{mirror}/{mirror_path}" if remote else file.url
    by_hand = (
        f"Without network, put the file at {target} by hand, or set {MIRROR_VARIABLE} to a folder or an "
        f"address that has it as {mirror_path}."
    )
    try:
        if _is_there(file, target):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        require_space(target, file.size_bytes or 0)
        if mirror and not remote:
            _copy(Path(mirror) / mirror_path, target, file)
        else:
            pooch.get_logger().setLevel("WARNING")  # the bar says what is happening
            target.unlink(missing_ok=True)  # it is not what the manifest says, or it would have been kept
            get = partial(_for_pooch, target, file, progress, limits)
            pooch.retrieve(url, known_hash, fname=target.name, path=target.parent, downloader=get)
        if known_hash is None:
            _record_or_compare(url, target)
    except requests.RequestException as error:
        problem = f"cannot be fetched ({_reason(error)})."
        raise InputError(url, problem, f"{_remedy(error)} {by_hand}") from error
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


def _for_pooch(
    target: Path, file: File, progress: bool, limits: Limits, url: str, output: str, _: object
) -> None:
    hashed = file.sha256 is not None
    size = file.size_bytes
    download(url, target, Path(output), size=size, hashed=hashed, progress=progress, limits=limits)


def _is_there(file: File, target: Path) -> bool:
    """Whether a file is there and what the manifest says, or what it was when it first came.

    Raises
    ------
    InputError
        If no hash of the manifest can tell, and it is not as large as stated or not as it was.
    """
    if not target.is_file():
        return False
    if file.sha256 is not None:
        return file_sha256(target) == file.sha256
    size = target.stat().st_size
    if file.size_bytes and size != file.size_bytes:
        raise InputError(
            target,
            f"has {size:,} bytes; the manifest says {file.size_bytes:,}.",
            "Delete it, and fetch it again.",
        )
    if recorded_sha256(target) not in (None, file_sha256(target)):
        raise InputError(target, "has changed since its first download.", "Delete it, and fetch it again.")
    record_sha256(target)
    return True


def _record_or_compare(url: str, target: Path) -> None:
    """Record the hash of a first download; refuse a later one that is another file."""
    first, found = recorded_sha256(target), file_sha256(target)
    if first not in (None, found):
        target.unlink()
        raise InputError(
            url,
            f"has changed at its source: its SHA-256 is {found}, that of its first download was {first}.",
            f"It was not kept; if it is wanted, delete {target.with_name(f'.{target.name}.sha256')} first.",
        )
    record_sha256(target)


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"HTTP {error.response.status_code}"
    return " ".join(str(error).split())[:200]


def _remedy(error: requests.RequestException) -> str:
    if error.response is not None and error.response.status_code in (401, 403, 404, 410):
        return "Its address may have changed: see the home page."
    return "Start again; what has arrived is kept."


def _copy(source: Path, target: Path, file: File) -> None:
    """Copy a file of a mirror folder, whole or not at all."""
    if not source.is_file():
        raise InputError(source, "is not in the mirror.", f"Unset {MIRROR_VARIABLE}, or complete the mirror.")
    size = source.stat().st_size
    if file.sha256 and file_sha256(source) != file.sha256:
        problem = f"its SHA-256 is not {file.sha256}, as the manifest says."
        raise InputError(source, problem, "Mend the mirror; nothing was copied.")
    if file.size_bytes and not file.sha256 and size != file.size_bytes:
        problem = f"has {size:,} bytes; the manifest says {file.size_bytes:,}."
        raise InputError(source, problem, "Mend the mirror; nothing was copied.")
    partial_copy = unfinished(target.parent)
    try:
        shutil.copyfile(source, partial_copy)
        os.replace(partial_copy, target)
    finally:
        partial_copy.unlink(missing_ok=True)


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
    if done.is_file() and done.read_bytes() == stamp.encode():
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
    except (ValueError, LookupError, OverflowError) as error:  # names and sizes in the archive that are none
        raise InputError(archive, f"is damaged ({error}).", "Delete it and fetch it again.") from error
    finally:
        if partial is not None:
            with suppress(OSError):  # on a disk that has become read-only
                remove_made(partial, folder)


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
        require_space(folder, sum(member.file_size for member in file.infolist()))
        file.extractall(folder)


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as file:
        members = file.getmembers()
        for member in members:
            _require_safe(archive, member.name, member.isfile() or member.isdir())
        require_space(folder, sum(member.size for member in members))
        file.extractall(folder, filter="data")
