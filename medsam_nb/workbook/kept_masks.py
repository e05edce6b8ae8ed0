"""Masks that a run keeps: which ones, how a row of the table finds its own, and as files over the source.

`masks` of a study is "none", "best", "all", or a list of designs (in 2D "prompt/mask_choice"). Those of all
are kept while the table is computed. Those of some are computed once more, with their designs only: so that
the best can be known, and so that a table that is finished already stays as it is.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from medsam_nb.data.export import mask_path, write_dicom_segmentation, write_masks
from medsam_nb.data.layouts.readers import find_cases
from medsam_nb.errors import StudyError, WorkbookError, require_known
from medsam_nb.evaluation.masks import MaskStore
from medsam_nb.manifest.rows import Manifest
from medsam_nb.protocol.designs import DESIGN_FACTORS, MASK_CHOICES_2D, ORACLES_2D, Design
from medsam_nb.protocol.prompt_sources import GIVEN, parse_source
from medsam_nb.protocol.table import FACTORS
from medsam_nb.statistics import case_means, summarise

NONE, BEST, ALL = CHOICES = ("none", "best", "all")
FACTORS_OF = {"2d": ("prompt", "mask_choice"), "3d": DESIGN_FACTORS}
WHOSE = ("data_set", "case_id", "object")


def names_of(task: str, parameters: Mapping[str, object]) -> list[str]:
    """Return the names of all designs whose masks a notebook's parameters lead to.

    Parameters
    ----------
    task : {"2d", "3d"}
    parameters : mapping
        With `prompts` (2D) or `designs` (3D, of `Design`), and perhaps `prompt_source`.
    """
    given = parse_source(parameters.get("prompt_source", "truth")).kind == "file"
    if task == "2d":
        prompts = [GIVEN] if given else parameters["prompts"]
        return [f"{prompt}/{choice}" for prompt in prompts for choice in MASK_CHOICES_2D]
    names = [_as_given(design) if given else design.name for design in parameters["designs"]]
    return list(dict.fromkeys(names))


def _as_given(design: Design) -> str:
    return f"{GIVEN}/{GIVEN}/{design.direction}/{design.mask_choice}"


def check_choice(value: str | Sequence[str], known: Sequence[str]) -> None:
    """Raise StudyError unless a value of `masks` is a word, or names designs that the study evaluates."""
    if isinstance(value, str):
        require_known("", value, CHOICES, what="choice of masks to keep")
    elif not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise StudyError("", f"is {value!r}.", "Write none, best, all, or a list of designs.")
    else:
        for name in value:
            require_known("", name, known, what="design that this notebook evaluates")


def best_of(table: pd.DataFrame, task: str) -> dict[str, str]:
    """Return, for every model, the name of the design with the highest mean IoU, data sets weighing alike.

    Choices by the truth (`ORACLES_2D`) do not count: no user has them.
    """
    rows = table[table["prompt"].notna() & ~table["mask_choice"].isin(ORACLES_2D)]
    by = ["model", *FACTORS_OF[task]]
    means = summarise(case_means(rows, by), by).sort_values("mean", ascending=False, kind="stable")
    first = means.drop_duplicates("model")
    return {row["model"]: "/".join(row[factor] for factor in FACTORS_OF[task]) for _, row in first.iterrows()}


def only(task: str, names: Iterable[str], parameters: Mapping[str, object]) -> dict[str, object]:
    """Return a task's parameters, reduced to what the masks of these designs take."""
    if task == "2d":
        wanted = {name.split("/")[0] for name in names}
        return dict(parameters) | {"prompts": [p for p in parameters["prompts"] if p in wanted]}
    wanted = set(names)
    designs = [d for d in parameters["designs"] if wanted & {d.name, _as_given(d)}]
    return dict(parameters) | {"designs": tuple(designs), "volume_metrics": "none"}


class KeptMasks:
    """The masks that the notebooks of a run have kept.

    Parameters
    ----------
    folder : Path
        Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = Path(folder), MaskStore(Path(folder) / "masks")
        paths = [self.folder / "tables" / f"masks_{task}.parquet" for task in FACTORS_OF]
        found = [pd.read_parquet(path) for path in paths if path.is_file()]
        self.index = pd.concat(found, ignore_index=True) if found else index_of(pd.DataFrame())

    def __len__(self) -> int:
        return len(self.index)

    def of_row(self, row: pd.Series) -> np.ndarray | None:
        """Return the mask that a row of the tidy table scored, bool (z, y, x); None if it was not kept."""
        found = self.index
        for column in (*WHOSE, *FACTORS):
            value = row.get(column)
            found = found[found[column].isna() if value is None or pd.isna(value) else found[column] == value]
        return None if found.empty else self._read(found.iloc[-1])

    def _read(self, line: pd.Series) -> np.ndarray | None:
        return self.store.read(run_key=line["run_key"], object=line["object"], design=name_of(line))

    def export(
        self, task: str, prepared_dir: Path, series: Mapping[tuple[str, str], Path] = MappingProxyType({})
    ) -> list[Path]:
        """Write the kept masks of a task over their source images.

        Each as NIfTI on the source's grid (`export.write_masks`); those of a case that came from a DICOM
        series also as one segmentation for each model and design, with all objects.

        Parameters
        ----------
        task : {"2d", "3d"}
        prepared_dir : Path
        series : mapping of (data set, case) to Path, optional
            Folders of DICOM series.

        Returns
        -------
        list of Path
            Below `derivatives/<model>/<data set>` of the run's folder.
        """
        paths = []
        lines = self.index[self.index["task"] == task]
        alike = ["model", "data_set", "case_id", "prompt_source", *FACTORS_OF[task], "run_key"]
        for _, of_case in lines.groupby(alike, sort=False, dropna=False):
            line = of_case.iloc[0]
            read = {one["object"]: self._read(one) for _, one in of_case.iterrows()}
            masks = {name: mask for name, mask in read.items() if mask is not None}
            record = {"Model": line["model"], "Task": line["task"], "Design": name_of(line)}
            record |= {"PromptSource": line["prompt_source"], "RunKey": line["run_key"]}
            target = self.folder / "derivatives" / line["model"] / line["data_set"]
            case_folder = Path(prepared_dir) / line["data_set"] / line["case_id"]
            said = [line["task"], name_of(line)]
            said += [line["prompt_source"]] if line["prompt_source"] != "truth" else []
            paths += write_masks(target, masks, case_folder, "/".join(said), record)
            place = series.get((line["data_set"], line["case_id"]))
            if place is not None and any(mask.any() for mask in masks.values()):
                paths.append(mask_path(target, line["case_id"], "all objects", "/".join(said), ".dcm"))
                write_dicom_segmentation(paths[-1], masks, case_folder, place, made_by=line["model"])
        return paths


def series_of(manifest: Manifest, data_sets: Iterable[str], raw_dir: Path) -> dict[tuple[str, str], Path]:
    """Return the folders of the DICOM series that cases of data sets came from, where they are there."""
    found = {}
    for name in data_sets:
        with suppress(WorkbookError):  # the downloads may be gone: NIfTI needs the prepared case only
            cases = find_cases(manifest.data_set(name), raw_dir)
            images = {case: source.image for case, source in cases.items() if source is not None}
            found |= {(name, case): image for case, image in images.items() if image.is_dir()}
    return found


def name_of(line: pd.Series) -> str:
    """Return the name of a row's design, as masks are kept under it."""
    return "/".join(line[factor] for factor in FACTORS_OF[line["task"]])


def index_of(table: pd.DataFrame, names: Sequence[str] = ()) -> pd.DataFrame:
    """Return a line for every kept mask: whose it is, its factors, and the key of its unit of work.

    Parameters
    ----------
    table : DataFrame
        Rows of the units that kept masks.
    names : sequence of str
        Of the designs whose masks they kept.
    """
    columns = [*WHOSE, *FACTORS, "run_key"]
    if table.empty:
        return pd.DataFrame(columns=columns)
    lines = table[columns].drop_duplicates()
    return lines[[name_of(line) in set(names) for _, line in lines.iterrows()]].reset_index(drop=True)
