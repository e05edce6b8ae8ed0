"""A notebook's side of a run: its data and models, and the tables that it computes.

A notebook opens its run once. What it shows through the run is in `showing`. What needs PyTorch is imported
where it is used: notebooks of statistics open without it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from medsam_nb.data.prepared import case_folders, load_case
from medsam_nb.errors import StudyError
from medsam_nb.evaluation.store import Store
from medsam_nb.figures import choices
from medsam_nb.figures.words import label
from medsam_nb.manifest.disclosure import seen_warnings
from medsam_nb.manifest.fine_tuned import with_fine_tuned
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.manifest.rows import Manifest
from medsam_nb.protocol.table import as_table
from medsam_nb.protocol.volume import Case
from medsam_nb.provenance import project_root
from medsam_nb.workbook import kept_masks, report
from medsam_nb.workbook.kept_masks import ALL, BEST, NONE, KeptMasks
from medsam_nb.workbook.owner import computing
from medsam_nb.workbook.showing import Showing

if TYPE_CHECKING:
    from medsam_nb.evaluation.label_map_units import LabelMapUnit
    from medsam_nb.evaluation.unit import Unit
    from medsam_nb.finetuning.jobs import Trainings
    from medsam_nb.models.checkpoints import Model


@dataclass
class Collected:
    """What notebooks would compute."""

    units: list[Unit] = field(default_factory=list)
    trainings: list[Trainings] = field(default_factory=list)


# Where work is put instead of being done, for those who ask what a notebook would compute.
_collected: ContextVar[Collected | None] = ContextVar("collected", default=None)


@contextmanager
def collecting() -> Iterator[Collected]:
    """Let nothing be computed or trained within the block: what would be is added to what it yields.

    `Run.evaluate` then returns a table without rows, and `fine_tuning.train` says what is not trained yet.
    """
    before, found = _collected.get(), Collected()
    _collected.set(found)
    try:
        yield found
    finally:
        _collected.set(before)


def collected() -> Collected | None:
    """Return where work is to be added instead of being done; None if it is to be done."""
    return _collected.get()


class Run(Showing):
    """What a notebook works with; made by `open_run`.

    Attributes
    ----------
    notebook : str
        Its name, such as "02_evaluate_2d".
    root, folder : Path
        Of the project, and of the run's results.
    manifest : Manifest
    store : Store
        Finished units of work.
    outcome : DataFrame
        How every unit ended, after `evaluate`.
    """

    def __init__(self, notebook: str, root: Path, folder: Path, manifest: Manifest) -> None:
        super().__init__(notebook, folder)
        self.root, self.manifest = root, manifest
        self.store = Store(folder / "rows")
        self.outcome = pd.DataFrame(columns=["data_set", "case_id", "model", "task", "status", "error"])
        self._tasks: list[str] = []
        self._models: dict[Model, Model] = {}

    def has(self, name: str) -> bool:
        """Whether this run has a table of that name."""
        return (self.folder / "tables" / f"{name}.parquet").is_file()

    def read(self, name: str) -> pd.DataFrame:
        """Return a table that this run has, by its name.

        Raises
        ------
        StudyError
            If no notebook has written it yet.
        """
        path = self.folder / "tables" / f"{name}.parquet"
        if not path.is_file():
            raise StudyError(path, "there is no such table yet.", "Run the notebook that writes it first.")
        return pd.read_parquet(path)

    def results(self, *further: str) -> pd.DataFrame:
        """Return the tidy tables of 2D, 3D and `further` tasks that the run has, one below the other."""
        return report.read_results(self.folder, ("2d", "3d", *further))

    def case_folders(self, data_sets: Sequence[str], prepared_dir: str | Path) -> list[Path]:
        """Return the folders of the prepared cases of data sets that count for accuracy."""
        names = self.manifest.measured(data_sets)
        return [folder for name in names for folder in case_folders(self.root / prepared_dir, name)]

    def first_cases(self, data_sets: Sequence[str], prepared_dir: str | Path) -> list[Case]:
        """Return the first prepared case of every data set that counts for accuracy."""
        folders = [self.case_folders([name], prepared_dir)[:1] for name in data_sets]
        return [load_case(folder) for first in folders for folder in first]

    def model(self, name: str, weights_dir: str | Path, device: str, dtype: str) -> Model:
        """Return a model of the manifest, loaded once; slices that the run has encoded are read."""
        from medsam_nb.evaluation import units

        model = units.loaded_model(self.manifest.checkpoint(name), self.root / weights_dir, device, dtype)
        if model.device.type != "cpu":
            return model
        if model not in self._models:
            self._models[model] = replace(model, encoded_slices=self.folder / "features")
        return self._models[model]

    def evaluate(
        self,
        task: str,
        data_sets: Sequence[str],
        models: Sequence[str],
        *,
        prepared_dir: str | Path,
        weights_dir: str | Path,
        workers: int,
        features_gb: float,
        cluster: str = "local",
        masks: str | Sequence[str] = NONE,
        label_maps: Sequence[str] = (),
        variants: Sequence[Mapping[str, object]] = ({},),
        cases: Mapping[str, Collection[tuple[str, str]]] | None = None,
        name: str = "",
        **parameters: object,
    ) -> pd.DataFrame:
        """Compute what is not stored yet, and return the tidy table of a task; keep it as `results_<name>`.

        Parameters
        ----------
        task : {"2d", "3d", "3d_changed", "2d_clicks", "3d_loops"}
        data_sets, models : sequence of str
            Rows of the manifest; format examples are left out.
        prepared_dir, weights_dir : str or Path
            Below the project, or absolute.
        workers : int
            See `units.run_units`.
        cluster : str
            See `units.run_units`.
        features_gb : float
            Disk for encoded slices; 0 for none.
        masks : str or sequence of str
            Whose masks are kept: see `kept_masks`.
        label_maps : sequence of str
            Rows of the manifest's label maps, scored beside the models.
        variants : sequence of mapping
            Parameters that differ: every case is computed with each, and the rows stand in one table.
        cases : mapping of model to collection of (data_set, case_id), optional
            Which cases each model is measured on; all, if not given.
        name : str
            Of the table; the task's if empty. Only those of the tasks are the results of a study (`results`).
        **parameters
            Of `units.plan_units` and of the task.

        Raises
        ------
        StudyError
            If there is no prepared case, or all units failed.
        """
        from medsam_nb.evaluation import units

        folders = self.case_folders(data_sets, prepared_dir)

        def of_models(some: Sequence[str]) -> list[tuple[Sequence[str], list[Path]]]:
            if cases is None:
                return [(some, folders)]
            return [([m], [f for f in folders if (f.parent.name, f.name) in cases[m]]) for m in some]

        def plan(names: Sequence[str], some: Sequence[str], given: Mapping[str, object]) -> list[Unit]:
            return [
                unit
                for variant in variants
                for group, chosen in of_models(some)
                for unit in units.plan_units(
                    task,
                    chosen,
                    [self.manifest.checkpoint(model) for model in group],
                    weights_dir=self.root / weights_dir,
                    features=(self.folder / "features", features_gb),
                    masks=(self.folder / "masks", names) if names else None,
                    **given,
                    **variant,
                )
            ]

        every = kept_masks.names_of(task, parameters) if masks == ALL else []
        planned = plan(every, models, parameters)
        named = [] if isinstance(masks, str) else list(masks)
        second = plan(named, models, kept_masks.only(task, named, parameters)) if named else []
        if (found := collected()) is not None:
            found.units += [*planned, *second]
            return as_table([])
        of_masks, whole = ([*planned], True) if every else (second, False)
        planned += self._label_map_units(task, data_sets, label_maps, prepared_dir, parameters)
        name = name or task
        with computing(self.folder, cluster):
            self.outcome = units.run_units(
                planned, self.store, workers=workers, label=label(task), cluster=cluster
            )
        report.save_table(self.outcome, self.folder, f"units_{name}")
        units.require_results(self.outcome)
        keys = units.finished(planned, self.store)
        table = self.store.read(keys)
        report.save_table(table, self.folder, f"results_{name}")
        if masks == BEST:
            for model, best in kept_masks.best_of(table, task).items():
                of_masks += plan([best], [model], kept_masks.only(task, [best], parameters))
        self._keep_masks(task, name, of_masks, whole, workers=workers, cluster=cluster)
        record = units.provenance(self.store, keys, planned[0].plain_parameters)
        self._tasks = list(dict.fromkeys([*self._tasks, task]))
        second = task != self._tasks[0]  # of a notebook with several tasks each leaves a record of its own
        name = f"{self.notebook}, {label(task)}" if second else self.notebook
        report.add_provenance(self.folder, name, record)
        return table

    def _label_map_units(
        self,
        task: str,
        data_sets: Sequence[str],
        names: Sequence[str],
        prepared_dir: str | Path,
        parameters: Mapping[str, object],
    ) -> list[LabelMapUnit]:
        from medsam_nb.evaluation import units

        options = parameters.get("options")
        return units.plan_label_map_units(
            task,
            self.case_folders(data_sets, prepared_dir),
            [self.manifest.maps(name) for name in names],
            self.root,
            seed=parameters["seed"],
            objects=parameters.get("objects", ()),
            protocol=options.protocol if options else parameters.get("protocol", "corrected"),
            volume_metrics=parameters.get("volume_metrics", "none"),
        )

    def _keep_masks(
        self, task: str, name: str, of_masks: Sequence[Unit], computed: bool, **how: object
    ) -> None:
        """Compute the units that keep masks, unless they are, and say in a table where the masks lie."""
        from medsam_nb.evaluation import units

        for stem in (f"masks_{name}", f"units_masks_{name}"):
            for suffix in (".parquet", ".csv"):
                (self.folder / "tables" / f"{stem}{suffix}").unlink(missing_ok=True)
        if not of_masks:
            return
        if not computed:
            with computing(self.folder, str(how["cluster"])):
                ended = units.run_units(of_masks, self.store, label=f"masks, {label(task)}", **how)
            report.save_table(ended, self.folder, f"units_masks_{name}")
        names = {one for unit in of_masks for one in unit.masks[1]}
        index = kept_masks.index_of(self.store.read(units.finished(of_masks, self.store)), names)
        report.save_table(index, self.folder, f"masks_{name}")

    def export_masks(
        self, task: str, prepared_dir: str | Path, raw_dir: str | Path = "data/raw"
    ) -> list[Path]:
        """Write the masks of a task that the run has kept over their source images, as NIfTI.

        Where the source is a DICOM series that is there below `raw_dir`, as a DICOM segmentation, too.

        Returns
        -------
        list of Path
            See `kept_masks.KeptMasks.export`.
        """
        kept = self.masks()
        series = kept_masks.series_of(self.manifest, kept.index["data_set"].unique(), self.root / raw_dir)
        return kept.export(task, self.root / prepared_dir, series)

    def masks(self) -> KeptMasks:
        """Return the masks that notebooks of this run have kept."""
        return KeptMasks(self.folder)

    def seen_warnings(self, data_sets: Sequence[str], models: Sequence[str]) -> list[str]:
        """Return what must be said of models that may know the images; see `manifest.seen_warnings`."""
        return seen_warnings(self.manifest, data_sets, models)


def open_run(
    notebook: str,
    run_dir: str | Path,
    manifest: str | Path = "data_manifest.yaml",
    extra_manifest: str | Path = "",
    weights_dir: str | Path = "weights",
) -> Run:
    """Open a run for a notebook.

    Parameters
    ----------
    notebook : str
        Its name, such as "02_evaluate_2d".
    run_dir : str or Path
        Folder of results, below the project or absolute.
    manifest, extra_manifest : str or Path
        Files that describe data sets and checkpoints; the second is your own, if not empty.
    weights_dir : str or Path
        Where fine-tuned checkpoints lie, whose rows are added.

    Returns
    -------
    Run
    """
    root = project_root()
    rows = load_manifest(root / manifest, *([root / extra_manifest] if extra_manifest else []))
    choices.take_up(choices.with_names(choices.kept(root / run_dir), rows.labels))
    return Run(notebook, root, root / run_dir, with_fine_tuned(rows, root / weights_dir))
