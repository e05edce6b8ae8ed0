"""The command line, `medsam-nb`: run a study, fetch data or weights."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from medsam_nb.errors import ManifestError, StudyError, WorkbookError, require_known
from medsam_nb.files import parse_yaml

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
ONLY = typer.Option(metavar="NOTEBOOK", help="Run only this one, by name or number; may be repeated.")
SET = typer.Option("--set", metavar="NAME=VALUE", help="Replace a parameter of the study.")


@app.command()
def run(
    study: Annotated[Path, typer.Argument(help="A study's YAML file, such as studies/demo.yaml.")],
    only: Annotated[list[str], ONLY] = [],  # noqa: B006 (typer copies it)
    allow_failures: Annotated[
        bool, typer.Option(help="Exit with 0 though cases or units of work failed.")
    ] = False,
    set_: Annotated[list[str], SET] = [],  # noqa: B006
) -> None:
    """Run a study's notebooks and write its report."""
    failed = 0
    try:
        from medsam_nb.workbook.progress import say
        from medsam_nb.workbook.runner import how_it_was_stopped, run_study

        outcome = run_study(study, _overrides(set_), only)
    except KeyboardInterrupt:
        print("stopped before the first notebook; nothing has changed.", file=sys.stderr)
        raise typer.Exit(130) from None
    if outcome.stopped:
        say(how_it_was_stopped(outcome))
    if outcome.report:
        from medsam_nb.workbook.summary import ended

        errors = [run.name for run in outcome.runs if run.error]
        lines, failed = ended(outcome.report.parent, errors, study)
        for line in [*lines, f"report: {outcome.report}"]:
            say(line)
    raise typer.Exit(outcome.exit_code or int(failed > 0 and not allow_failures))


@app.command()
def report(
    study: Annotated[Path, typer.Argument(help="A study's YAML file that has been run.")],
    single_file: Annotated[bool, typer.Option(help="One file with all figures, to be mailed.")] = False,
) -> None:
    """Write a study's report again, without running anything."""
    from medsam_nb.workbook.runner import rewrite_report

    print(rewrite_report(study, single=single_file))


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="The folder of a run, such as runs/demo.")],
    second: Annotated[Path, typer.Argument(help="The folder of another.")],
    out: Annotated[Path | None, typer.Option(help="Where to; runs/FIRST_and_SECOND without it.")] = None,
) -> None:
    """Compare two runs: what differs in their records and rows, and paired differences with intervals."""
    from medsam_nb.provenance import project_root
    from medsam_nb.workbook import comparing

    sides = comparing.compare_runs(first, second)
    folder = out or project_root() / "runs" / "_and_".join(sides.names)
    for line in comparing.sentences(sides):
        print(line)
    print(f"page: {comparing.write_comparison(sides, folder)}")


@app.command()
def plan(
    study: Annotated[Path, typer.Argument(help="A study's YAML file, such as studies/paper_v1.yaml.")],
    set_: Annotated[list[str], SET] = [],  # noqa: B006
) -> None:
    """Say what a study will take: units, trainings, hours, workers, disk. Cases must be prepared."""
    from medsam_nb.finetuning.jobs import seconds_per_step
    from medsam_nb.workbook import planning
    from medsam_nb.workbook.progress import say
    from medsam_nb.workbook.shares import run_share
    from medsam_nb.workbook.work import work_of_study

    work = work_of_study(study, _overrides(set_))

    def sample(unit) -> None:
        say(f"measuring one unit: {unit.task}, {unit.key.model}, {unit.key.data_set}/{unit.key.case_id}")
        list(run_share([unit], work.store, workers=1))

    def measure(trainings, job) -> float:
        say(f"measuring steps of a training: {job.name}")
        seconds, error = seconds_per_step(job, trainings.weights_dir, trainings.device)
        if error:
            say(f"failed: {error}")
        return seconds

    found = list(planning.parts(work.units, work.store, sample))
    found += planning.training_parts(work.trainings, measure)
    say(planning.table(found).round(2).to_string(index=False))
    for sentence in [*planning.sentences(found, work.store, work.workers), *work.not_planned]:
        say(sentence)


@app.command()
def units(
    study: Annotated[Path, typer.Argument(help="A study's YAML file, such as studies/paper_v1.yaml.")],
    part: Annotated[str, typer.Option(metavar="K/N", help="This job's share; all without it.")] = "1/1",
    set_: Annotated[list[str], SET] = [],  # noqa: B006
) -> None:
    """Compute a share of a study's units, for array jobs; `medsam-nb run` then finds them stored."""
    from medsam_nb.workbook.progress import say
    from medsam_nb.workbook.shares import run_share, share
    from medsam_nb.workbook.work import work_of_study

    number, of = part_of(part)
    work = work_of_study(study, _overrides(set_))
    mine = share(work.all_units, number, of)
    counted: dict[str, int] = {}
    for done, (unit, status, error) in enumerate(run_share(mine, work.store, work.workers), 1):
        counted[status] = counted.get(status, 0) + 1
        if status != "stored":
            name = f"{unit.task}, {unit.key.model}, {unit.key.data_set}/{unit.key.case_id}"
            say(f"[{done}/{len(mine)}] {name}: {status}{f' ({error})' if error else ''}")
    numbers = ", ".join(f"{number} {status}" for status, number in sorted(counted.items())) or "none"
    say(f"part {part}: {len(mine)} of {len(work.all_units)} units; {numbers}")
    if work.untrained:
        say(
            f"checkpoints that are not trained yet: {work.untrained}. `medsam-nb finetune {study}` trains "
            "them; start this again then, for what is measured with them"
        )
    for sentence in work.not_planned:
        say(sentence)
    raise typer.Exit(int("failed" in counted or bool(work.not_planned)))


@app.command()
def finetune(
    study: Annotated[Path, typer.Argument(help="A study's YAML file, such as studies/open_questions.yaml.")],
    set_: Annotated[list[str], SET] = [],  # noqa: B006
) -> None:
    """Train the checkpoints of a study's 13_fine_tune, going on where it was; cases must be prepared."""
    from medsam_nb.workbook.fine_tuning import train_study

    raise typer.Exit(int(train_study(study, _overrides(set_)) > 0))


def part_of(text: str) -> tuple[int, int]:
    """Return number and count of a share that is written as "7/200"."""
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise StudyError(f"--part {text}", "is no part.", "Write, for example, --part 7/200.")
    return int(number), int(of)


@app.command()
def rehearse(
    study: Annotated[Path, typer.Argument(help="A study's YAML file, such as studies/paper_v1.yaml.")],
    only: Annotated[list[str], typer.Option(help="A data set; may be given several times.")] = [],  # noqa: B006
    set_: Annotated[list[str], SET] = [],  # noqa: B006
) -> None:
    """Run a study on small downloads that lie as the real ones do, with the miniature models."""
    from medsam_nb.workbook.rehearsal.rehearse import rehearse as rehearsed
    from medsam_nb.workbook.rehearsal.rehearse import report

    found = rehearsed(study, only, _overrides(set_))
    report(found)
    raise typer.Exit(found.exit_code)


def _overrides(items: list[str]) -> dict[str, object]:
    """Return the parameters of `--set NAME=VALUE`, values as YAML."""

    overrides = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise StudyError(f"--set {item}", "is not NAME=VALUE.", "Write, for example, --set workers=4.")
        if name in overrides:
            raise StudyError(f"--set {item}", f"{name} is set twice.", "Keep one of the two.")
        overrides[name], _ = parse_yaml(value, f"--set {name}", error=StudyError)
    return overrides


@app.command()
def parameters(notebook: Annotated[str, typer.Argument(help="Such as 02_evaluate_2d.")]) -> None:
    """List what a notebook can be told."""
    from medsam_nb.workbook.study import declared_parameters

    for name, entry in declared_parameters(notebook).items():
        print(f"{name} = {entry['default']}    {entry['help']}")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A data set or checkpoint of the manifest.")],
    manifest: Annotated[Path | None, typer.Option(help="A manifest of your own, added to the first.")] = None,
) -> None:
    """Download a data set or checkpoint, checked by SHA-256; or say which steps only you can take."""
    from medsam_nb.data.fetch import fetch as fetch_data_set
    from medsam_nb.data.fetch import fetch_checkpoint
    from medsam_nb.manifest.reading import load_manifest
    from medsam_nb.provenance import project_root

    root = project_root()
    rows = load_manifest(root / "data_manifest.yaml", *([manifest] if manifest else []))
    known = [*rows.data_sets, *rows.checkpoints]
    require_known("fetch", name, known, what="data set or checkpoint", error=ManifestError)
    if name in rows.checkpoints:
        print(fetch_checkpoint(rows.checkpoint(name), root / "weights"))
        return
    for remark in fetch_data_set(rows.data_set(name), root / "data" / "raw"):
        print(remark)


@app.command()
def describe(
    folder: Annotated[Path, typer.Argument(help="Images and masks of your own.")],
    out: Annotated[Path | None, typer.Option(help="A new manifest file; printed without it.")] = None,
) -> None:
    """Look at a folder and write the row of a manifest that fits; what it cannot know stands in comments."""
    from medsam_nb.errors import InputError
    from medsam_nb.files import write_study_file
    from medsam_nb.workbook.describing import describe_folder

    if out is not None and out.exists():
        raise InputError(out, "is there already.", "Choose another name, or move it away.")
    found = describe_folder(folder)
    if out is None:
        print(found.text, end="")
        return
    write_study_file(out, found.text.encode())
    print(f"{out}: {found.cases} cases in the row {found.name}, {len(found.questions)} questions left open.")


@app.command()
def data_sets() -> None:
    """List every data set of the manifest with its access, licence and state (the README's table)."""
    from medsam_nb.manifest.reading import load_manifest
    from medsam_nb.manifest.schema import state_table
    from medsam_nb.provenance import project_root

    print(state_table(load_manifest(project_root() / "data_manifest.yaml")), end="")


@app.command()
def schema(
    prompts: Annotated[bool, typer.Option(help="That of a file of prompts.")] = False,
) -> None:
    """Print the manifest's JSON schema, which editors use; `make schema` writes it to its file."""
    if prompts:
        from medsam_nb.protocol.prompts_file import schema_text
    else:
        from medsam_nb.manifest.schema import schema_text

    print(schema_text(), end="")


def main() -> None:
    """Run the command; an error that the user can mend is told in a sentence, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a terminal that knows only ASCII must not stop a study
    try:
        app()
    except WorkbookError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
