"""Results that open at a click: filter and sort the tidy table, and see the pictures behind a row.

Masks that the run has kept are read, others computed again from case, prompt and seed of the row; their IoU
must be the row's value.
"""

import traceback
from collections.abc import Callable, Mapping
from html import escape
from io import BytesIO
from pathlib import Path

import ipywidgets as widgets
import matplotlib.pyplot as plt
import pandas as pd

from medsam_nb.data.prepared import load_case
from medsam_nb.errors import InputError, WorkbookError
from medsam_nb.figures.grids import grid
from medsam_nb.figures.slices import Panel
from medsam_nb.figures.words import label
from medsam_nb.models.checkpoints import Model
from medsam_nb.workbook.kept_masks import KeptMasks
from medsam_nb.workbook.row_pictures import panels_of_row

FILTERS = ("task", "model", "data_set", "object", "prompt", "frame_choice", "direction", "mask_choice")
ORDERS = {"worst first": True, "best first": False}
ALL, SHOWN = "(all)", 200


def chosen_rows(table: pd.DataFrame, wanted: Mapping[str, str], order: str = "worst first") -> pd.DataFrame:
    """Return the rows of single slices that can be shown, filtered and sorted by value.

    Parameters
    ----------
    table : DataFrame
        The tidy table.
    wanted : mapping of column to value
    order : {"worst first", "best first"}
    """
    rows = table[(table["metric"] == "iou") & table["slice_index"].notna() & table["prompt"].notna()]
    rows = rows[(rows["task"] == "3d") | (rows["mask_choice"] == "first_mask")]
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    return rows.sort_values("value", ascending=ORDERS[order], kind="stable")


def pictures_of_row(
    row: pd.Series,
    model_of: Callable[[str], Model],
    prepared_dir: Path,
    *,
    seed: int,
    kept: KeptMasks | None = None,
) -> list[Panel]:
    """Return image, truth, prediction and prompt of a row.

    Raises
    ------
    InputError
        If what is predicted now is not what the row says.
    """
    case = load_case(Path(prepared_dir) / row["data_set"] / row["case_id"])
    panels = panels_of_row(model_of(row["model"]), case, row, seed=seed, kept=kept)
    if panels[-1].iou != row["value"]:
        raise InputError(
            f"{row['case_id']}, slice {row['slice_index']}",
            f"its IoU is {panels[-1].iou:.4f} now, {row['value']:.4f} in the table.",
            "Evaluate again: case, weights, code or seed are not those of the table.",
        )
    return panels


def _words(row: pd.Series) -> str:
    parts = [row["case_id"], row["object"], f"slice {row['slice_index']}", row["model"], row["prompt"]]
    parts += [row[c] for c in ("frame_choice", "direction", "mask_choice") if pd.notna(row[c])]
    return f"{row['value']:.3f}  {' · '.join(label(part) for part in parts)}"


class ResultsView(widgets.VBox):
    """The widgets: a filter per factor, the sorted rows, and the pictures of the chosen one.

    Parameters
    ----------
    table : DataFrame
        The tidy table.
    model_of : callable (name) -> Model
    prepared_dir : Path
    seed : int
        Of the study.
    kept : KeptMasks, optional
        Of the run; rows whose masks were kept need no network.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        model_of: Callable[[str], Model],
        prepared_dir: Path,
        *,
        seed: int,
        kept: KeptMasks | None = None,
    ) -> None:
        self._table, self._model_of, self._prepared, self._seed = table, model_of, prepared_dir, seed
        self._kept = kept
        self.filters = {
            column: widgets.Dropdown(
                options=[ALL, *sorted(table[column].dropna().unique())], description=label(column)
            )
            for column in FILTERS
        }
        self.order = widgets.Dropdown(options=list(ORDERS), description="order")
        self.rows = widgets.Select(rows=10, layout={"width": "60rem"})
        self.picture, self.status = widgets.Image(format="png"), widgets.HTML()
        self.panels: list[Panel] = []
        for control in (*self.filters.values(), self.order):
            control.observe(lambda _: self.refresh(), names="value")
        self.rows.observe(lambda _: self.show(), names="value")
        controls = widgets.GridBox(
            [*self.filters.values(), self.order], layout={"grid_template_columns": "repeat(3, 20rem)"}
        )
        super().__init__([controls, self.rows, self.status, self.picture])
        self.refresh()

    def refresh(self) -> None:
        """Filter and sort anew; nothing is chosen then."""
        wanted = {column: w.value for column, w in self.filters.items() if w.value != ALL}
        rows = chosen_rows(self._table, wanted, self.order.value)
        self.rows.options = [(_words(row), index) for index, row in rows.head(SHOWN).iterrows()]
        self.rows.value = None
        self.status.value = f"{min(len(rows), SHOWN)} of {len(rows)} rows; click one to see it."

    def show(self) -> None:
        """Show the pictures of the chosen row; what goes wrong is shown in their place."""
        if self.rows.value is None:
            return
        row = self._table.loc[self.rows.value]
        try:
            self.panels = pictures_of_row(
                row, self._model_of, self._prepared, seed=self._seed, kept=self._kept
            )
            figure, _ = grid(self.panels, columns=2, width_mm=160)
            buffer = BytesIO()
            figure.savefig(buffer, format="png", dpi=130)
            plt.close(figure)
            self.picture.value = buffer.getvalue()
            self.status.value = f"IoU {row['value']:.4f}, as in the table."
        except WorkbookError as error:
            self.status.value = f"<b style='color:#b00020'>{escape(str(error))}</b>"
        except Exception:
            self.status.value = f"<pre style='color:#b00020'>{escape(traceback.format_exc())}</pre>"
