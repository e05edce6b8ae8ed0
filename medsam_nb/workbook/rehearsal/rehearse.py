"""A study's rehearsal: small downloads are built, fetched, prepared, measured, tested and drawn.

What is reduced, and nothing else: two small cases for each data set; the miniature models play the study's.
Everything else is the study's own, down to its notebooks and parameters.
"""

import http.server
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from medsam_nb.data.fetch import MIRROR_VARIABLE
from medsam_nb.data.locks import Locked, locked
from medsam_nb.errors import StudyError, require_known
from medsam_nb.files import read_yaml, remove_made, write_study_file
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.manifest.rows import DataSet, Manifest
from medsam_nb.provenance import file_sha256, project_root
from medsam_nb.workbook.progress import say
from medsam_nb.workbook.rehearsal.downloads import CASES, DOWNLOADS
from medsam_nb.workbook.runner import Outcome, run_study
from medsam_nb.workbook.study import below_root, find_study, load_study, run_folder

PLAYERS = {"sam2": "miniature_sam2", "sam": "miniature_sam"}  # which miniature plays a family of models
INPUTS = ("built", "served", "raw", "prepared", "manifest.yaml", "study.yaml")  # of a rehearsal
PREPARE = "01_prepare_data"
MEASURE = {"02_evaluate_2d": "units_2d", "03_propagate_3d": "units_3d"}


@dataclass(frozen=True)
class Rehearsal:
    """How a rehearsal ended.

    Attributes
    ----------
    sentences : dict of str to str
        What became of each data set.
    failed : tuple of str
        The data sets that did not come through.
    outcome : Outcome
        Of the study that was run.
    """

    sentences: Mapping[str, str]
    failed: tuple[str, ...]
    outcome: Outcome

    @property
    def exit_code(self) -> int:
        """0 if everything came through, else the run's own, else 1."""
        return self.outcome.exit_code or int(bool(self.failed))


def rehearse(path: Path, only: Sequence[str] = (), overrides: Mapping[str, Any] | None = None) -> Rehearsal:
    """Run a study on small downloads, in the folder `runs/rehearsal_<name>`.

    Parameters
    ----------
    path : Path
        The study's YAML file.
    only : sequence of str
        Data sets of the study; all of them by default.
    overrides : mapping, optional
        Parameters that replace those of the file.

    Raises
    ------
    WorkbookError
        If the study cannot be done as it is written, or has a data set of which no small download is known.
    """
    path = find_study(path)
    study = load_study(path)
    content, _ = read_yaml(path, error=StudyError)
    names = _data_sets(path, content, only)
    folder = run_folder(f"rehearsal_{study.name}")
    inputs = folder / "inputs"
    files = [(content.get("parameters") or {}).get(key) for key in ("manifest", "extra_manifest")]
    root = project_root()
    manifest = load_manifest(
        root / (files[0] or "data_manifest.yaml"), *[root / file for file in files[1:] if file]
    )
    with _alone(folder, path), _server(inputs / "served") as address, _without_mirror():
        rows = {name: _download(manifest.data_set(name), inputs, address) for name in names}
        _write(inputs / "manifest.yaml", _manifest(manifest, rows))
        rehearsed = _study(content, study.name, inputs, names, manifest)
        _write(inputs / "study.yaml", rehearsed)
        outcome = run_study(inputs / "study.yaml", overrides)
    found = {name: _result(name, rows[name], folder, rehearsed, outcome) for name in names}
    failed = tuple(name for name, (_, through) in found.items() if not through)
    return Rehearsal({name: sentence for name, (sentence, _) in found.items()}, failed, outcome)


def _data_sets(path: Path, content: Mapping, only: Sequence[str]) -> list[str]:
    """Return the data sets that are rehearsed."""
    parts = [content.get("parameters") or {}, *(own or {} for own in content["notebooks"].values())]
    names = list(dict.fromkeys(name for part in parts for name in part.get("data_sets") or ()))
    for name in only:
        require_known("--only", name, names, what="data set of the study")
    names = [name for name in names if name in only] if only else names
    unknown = [name for name in names if name not in DOWNLOADS]
    if unknown or not names:
        problem = f"no small download is known of {', '.join(unknown) or 'any of its data sets'}."
        raise StudyError(path, problem, f"Rehearse others with --only; known are {', '.join(DOWNLOADS)}.")
    return names


def _download(row: DataSet, inputs: Path, address: str) -> dict:
    """Build a data set's download; return its row, with addresses on this machine where it is open.

    Of the others, what a user would have put into the raw folder by hand is put there.
    """
    fields = row.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
    fields["layout"] = row.layout.model_dump(mode="json", exclude_none=True)
    fields.pop("expected", None)  # of the complete download
    raw = inputs / "raw" / row.raw_folder
    if row.access != "open" or not row.files:
        DOWNLOADS[row.name](raw)
        return fields
    if len(row.files) != 1 or not row.files[0].unpack:
        raise StudyError(row.name, "is no single archive in the manifest.", "Extend `workbook/rehearsal`.")
    content, archive = inputs / "built" / row.name, inputs / "served" / row.name / row.files[0].path
    DOWNLOADS[row.name](content)
    _pack(content, archive)
    file = {"url": f"{address}/{row.name}/{row.files[0].path}", "path": row.files[0].path, "unpack": True}
    fields["files"] = [file | {"sha256": file_sha256(archive), "size_bytes": archive.stat().st_size}]
    return fields


def _pack(folder: Path, archive: Path) -> None:
    """Pack a folder as the real archive is packed, by its ending."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted(folder.rglob("*")):
                file.write(path, path.relative_to(folder))
        return
    with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as file:
        for path in sorted(folder.iterdir()):
            file.add(path, path.name)


def _manifest(manifest: Manifest, rows: Mapping[str, dict]) -> dict:
    kept = {
        name: model.model_dump(mode="json", exclude={"name"}, exclude_none=True)
        for name, model in manifest.checkpoints.items()
    }
    return {"data_sets": dict(rows), "checkpoints": kept}


def _study(content: Mapping, name: str, inputs: Path, names: Sequence[str], manifest: Manifest) -> dict:
    """Return the study's file with the rehearsal's data and models, and nothing else changed."""
    players = {key: PLAYERS[model.family] for key, model in manifest.checkpoints.items()}
    made = _replaced(content, players)
    made["name"] = f"rehearsal_{name}"
    made["title"] = f"Rehearsal: {content['title']}"
    made["caveats"] = [
        f"This is a rehearsal on {CASES} made-up cases of each data set, with miniature models: its numbers "
        "mean nothing. It shows that the study can be run."
    ]
    places = {key: below_root(inputs / key.removesuffix("_dir")) for key in ("raw_dir", "prepared_dir")}
    made["parameters"] = (made.get("parameters") or {}) | places
    made["parameters"] |= {"manifest": below_root(inputs / "manifest.yaml"), "extra_manifest": ""}
    made["notebooks"] = {key: dict(own or {}) for key, own in made["notebooks"].items()}
    if PREPARE in made["notebooks"]:
        made["notebooks"][PREPARE]["download"] = True
    for part in (made["parameters"], *made["notebooks"].values()):
        if "data_sets" in part:
            part["data_sets"] = [one for one in part["data_sets"] if one in names]
    # A notebook of which no data set is rehearsed has nothing to do.
    made["notebooks"] = {key: own for key, own in made["notebooks"].items() if own.get("data_sets", names)}
    return made


def _replaced(value: Any, players: Mapping[str, str]) -> Any:
    """Return a study's content with every model replaced by who plays it; lists keep each once."""
    if isinstance(value, dict):
        return {key: _replaced(one, players) for key, one in value.items()}
    if isinstance(value, list):
        made = [_replaced(one, players) for one in value]
        return [
            one for number, one in enumerate(made) if not isinstance(one, str) or one not in made[:number]
        ]
    return players.get(value, value) if isinstance(value, str) else value


def _write(path: Path, content: Mapping) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_study_file(path, yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True).encode())


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing: downloads have bars of their own."""


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine while the block runs; yield its address."""
    folder.mkdir(parents=True, exist_ok=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _alone(folder: Path, path: Path) -> Iterator[None]:
    """Hold a rehearsal's folder while the block runs, without the inputs of an earlier one.

    StudyError says who else holds it, or what in it is not the rehearsal's.
    """
    with ExitStack() as held:
        try:
            held.enter_context(locked(folder / ".rehearsal.lock", f"medsam-nb rehearse {path}"))
            remove_made(folder / "inputs", folder, INPUTS)
        except Locked as busy:
            raise StudyError(path, f"is being rehearsed already, by {busy}.", "Wait until it ends.") from busy
        except (ValueError, OSError) as error:
            raise StudyError(folder / "inputs", f"{error}.", "Move it away.") from error
        yield


@contextmanager
def _without_mirror() -> Iterator[None]:
    """Let downloads come from this machine: no mirror, no proxy, for the notebooks' processes too."""
    before = {name: os.environ.get(name) for name in (MIRROR_VARIABLE, "NO_PROXY", "no_proxy")}
    os.environ.pop(MIRROR_VARIABLE, None)
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _result(name: str, row: Mapping, folder: Path, study: Mapping, outcome: Outcome) -> tuple[str, bool]:
    """Return in a sentence what became of a data set, and whether it came through."""
    came = "fetched" if row.get("files") else "put in place"
    done = {run.name for run in outcome.runs if not run.error}
    if PREPARE not in done:
        return f"{name}: {came}, and not prepared: {PREPARE} failed.", False
    cases = pd.read_parquet(folder / "tables" / "cases.parquet")
    cases = cases[cases["data_set"] == name]
    usable, wrong = int((cases["status"] == "ok").sum()), cases[cases["status"] == "failed"]
    words, through = [f"{usable} cases prepared"], usable >= CASES and wrong.empty
    words += [f"{len(wrong)} failed ({wrong['error'].iloc[0]})"] if len(wrong) else []
    for notebook, table in MEASURE.items():
        own = study["notebooks"].get(notebook)
        if own is None or name not in own.get("data_sets", study["parameters"].get("data_sets", ())):
            continue
        if notebook not in done:
            words, through = [*words, f"not measured: {notebook} failed"], False
            continue
        units = pd.read_parquet(folder / "tables" / f"{table}.parquet")
        units = units[units["data_set"] == name]
        bad = units[units["status"] == "failed"]
        words.append(f"{len(units) - len(bad)} units measured in {table[-2:].upper()}")
        words += [f"{len(bad)} failed ({bad['error'].iloc[0]})"] if len(bad) else []
        through = through and bad.empty and len(units) >= usable
    return f"{name}: {came}, {', '.join(words)}.", through


def report(rehearsal: Rehearsal) -> None:
    """Print a sentence for each data set, and one for all."""
    for sentence in rehearsal.sentences.values():
        say(sentence)
    errors = [f"{run.name}: {run.error}" for run in rehearsal.outcome.runs if run.error]
    for error in errors:
        say(f"failed: {error}")
    if rehearsal.exit_code:
        say(f"The rehearsal failed ({len(rehearsal.failed)} data sets, {len(errors)} notebooks).")
    else:
        say(f"All {len(rehearsal.sentences)} data sets came through; report: {rehearsal.outcome.report}")
