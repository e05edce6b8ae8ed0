"""What a notebook shows (tables, figures, pictures), and the section that it leaves for the report.

Each is saved with the numbers behind it, shown in the notebook, and stands in the report under the caption
that is written where it is made.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medsam_nb.figures import grids, slices, style
from medsam_nb.figures.words import label
from medsam_nb.workbook import report

ROWS_SHOWN = 12  # of a table in a notebook; the report and the CSV hold more


class Showing:
    """What a notebook has shown so far, and where it goes.

    Parameters
    ----------
    notebook : str
        Its name, such as "02_evaluate_2d".
    folder : Path
        Of the run's results.
    """

    def __init__(self, notebook: str, folder: Path) -> None:
        self.notebook, self.folder = notebook, folder
        self._figures: dict[str, str] = {}
        self._drawn: list[str] = []  # of them, those that are no pictures of slices
        self._tables: dict[str, str] = {}
        self._galleries: dict[str, list[tuple[str, str]]] = {}
        self._plotted: tuple[pd.DataFrame, str] | None = None

    def provenance(self) -> pd.DataFrame:
        """Return where this notebook's numbers come from, a line per fact."""
        record = report.read_provenance(self.folder).get(self.notebook, {})
        names = ("git_commit", "code_sha256", "device", "dtype", "seed", "hole_filling", "seconds")
        facts = {name.replace("_", " "): record[name] for name in names if name in record}
        facts |= {f"weights of {label(name)}": sha for name, sha in record.get("checkpoints", {}).items()}
        facts |= {f"label maps of {label(name)}": sha for name, sha in record.get("label_maps", {}).items()}
        lines = {name: ", ".join(map(str, v)) if isinstance(v, list) else str(v) for name, v in facts.items()}
        return pd.Series(lines, name="value").to_frame()

    def table(self, name: str, table: pd.DataFrame, caption: str = "", *, shown: int = ROWS_SHOWN) -> None:
        """Save a table, show its first rows, and register it for the report if it has a caption.

        Parameters
        ----------
        name : str
            Of the files `tables/<name>.csv` and `.parquet`.
        table : DataFrame
        caption : str
            Without one the table is saved and shown, but does not stand in the report.
        shown : int
            Rows shown in the notebook; 0 for none.
        """
        report.save_table(table, self.folder, name)
        if caption:
            self._tables[name] = caption
        if shown and get_ipython() is not None:
            numbers = dict.fromkeys(table.select_dtypes("number"), 3)
            with pd.option_context("display.max_colwidth", 200, "display.max_rows", None):
                display(table.head(shown).round(numbers))
                if len(table) > shown:
                    print(f"{shown} of {len(table)} rows; all are in tables/{name}.csv")

    @contextmanager
    def figure(
        self, name: str, *, width_mm: float = style.COLUMN_MM, height_mm: float = 62, **options
    ) -> Iterator[Axes | np.ndarray]:
        """Make a figure; what was drawn is said with `plotted`, then it is saved and shown.

        Parameters
        ----------
        name : str
            Of the files `figures/<name>.pdf`, `.png` and `.csv`.
        width_mm, height_mm : float
            Printed size.
        **options
            Of `style.canvas`, such as `columns`.

        Yields
        ------
        Axes or ndarray of Axes
        """
        with style.style():
            figure, axes = style.canvas(width_mm, height_mm, **options)
            yield axes
            if self._plotted is None:
                raise ValueError(f"{name}: say what was drawn with run.plotted(table, caption)")
            self._keep_figure(name, figure, *self._plotted)
            self._drawn += [name] if self._plotted[1] else []
            self._plotted = None

    def plotted(self, table: pd.DataFrame, caption: str) -> None:
        """Say, within `figure`, what was drawn, and its caption; without one the report leaves it out."""
        self._plotted = table, caption

    def pictures(
        self,
        name: str,
        panels: Sequence[slices.Panel | None],
        caption: str,
        *,
        columns: int = 4,
        width_mm: float = style.PAGE_MM,
    ) -> None:
        """Draw panels in a grid, save and show it; one that does not fit a page becomes several figures."""
        parts = grids.pages(panels, columns, width_mm)
        for number, part in enumerate(parts, 1):
            own = name if number == 1 else f"{name}_{number}"
            said = f"{caption} ({number} of {len(parts)})" if len(parts) > 1 else caption
            with style.style():
                figure, plotted = grids.grid(part, columns=columns, width_mm=width_mm)
                self._keep_figure(own, figure, plotted, said)

    def _keep_figure(self, name: str, figure: Figure, plotted: pd.DataFrame, caption: str) -> None:
        style.save(figure, self.folder / "figures", name, plotted)
        if caption:
            self._figures[name] = caption
        if get_ipython() is not None:
            display(figure)

    def gallery(self, heading: str, pictures: Sequence[tuple[str, str]]) -> None:
        """Register pictures that already lie below the run's folder, folded under a heading."""
        self._galleries[heading] = list(pictures)

    def section(
        self,
        heading: str,
        text: str,
        *,
        in_short: str = "",
        facts: Mapping[str, object] | None = None,
        lead: str | None = None,
    ) -> str:
        """Leave this notebook's section for the report; return a sentence that says where.

        Parameters
        ----------
        heading, text : str
            What the section is about, and what was found; an empty line divides paragraphs.
        in_short : str
            The finding in a sentence, for the top of the report.
        facts : mapping
            Name and value of what should stand in plain sight.
        lead : str, optional
            The figure that stands in the open, above what is folded; "" for none, and the first that is no
            picture of slices if it is not said. Only a notebook that says something `in_short` has one.

        Raises
        ------
        FileNotFoundError
            If something that was registered is not there.
        """
        files = [self.folder / "figures" / f"{name}.png" for name in self._figures]
        files += [self.folder / "tables" / f"{name}.parquet" for name in self._tables]
        if missing := [path for path in files if not path.is_file()]:
            raise FileNotFoundError(f"{', '.join(map(str, missing))}: shown, but not written")
        path = report.add_section(
            self.folder,
            self.notebook,
            heading,
            text,
            figures=self._figures,
            tables=self._tables,
            facts=facts,
            in_short=in_short,
            galleries=self._galleries,
            lead=(next(iter(self._drawn), "") if lead is None else lead) if in_short else "",
        )
        counted = f"{len(self._figures)} figures and {len(self._tables)} tables"
        return f"{counted} for the report; {path}"
