"""`python -m training`: train a miniature, or measure it. `make train` and `make model-report` call it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from medsam_nb.errors import WorkbookError

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)


@app.command()
def train(
    plan: Annotated[Path, typer.Argument(help="Such as training/plans/sam2.yaml.")],
    out: Annotated[Path | None, typer.Option(help="Folder of state, logs and result.")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Total budget; stages keep their proportions. To see it learn, stop a whole run early."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; cuda where there is one.")] = None,
) -> None:
    """Train a miniature model from scratch, or go on where a run stopped."""
    from training import run

    print(run.train(plan, out or Path("runs/training") / plan.stem, minutes, device))


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="Folder of numbers, tables and overlays.")] = Path(
        "runs/miniature"
    ),
    only: Annotated[str | None, typer.Option(help="One model: miniature_sam2 or miniature_sam.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of that model, not the shipped ones.")] = None,
) -> None:
    """Measure the miniature models on data that their training never saw."""
    from training import report as reporting

    reporting.report(out, only=only, weights=weights)


if __name__ == "__main__":
    try:
        app()
    except WorkbookError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
