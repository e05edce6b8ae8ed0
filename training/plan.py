"""A training plan: its stages, its file, and the learning rate of a stage."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from medsam_nb.errors import StudyError
from medsam_nb.files import read_yaml
from medsam_nb.finetuning.targets import Rules
from training.samples import SampleOptions

STRICT = {"extra": "forbid", "allow_inf_nan": False}
UNKNOWN_KEY = "unexpected_keyword_argument"  # pydantic's word for it


def _without_rules(given: Any) -> Any:
    """Refuse the rules of a stage in the wrong place: samples take them from the stage."""
    if isinstance(given, dict) and "rules" in given:
        raise ValueError("'rules' stand beside `samples`, not in them")
    return given


Share = Annotated[float, Field(ge=0, le=1)]
Samples = Annotated[SampleOptions, BeforeValidator(_without_rules)]


@dataclass(frozen=True, config=STRICT)
class Stage:
    """One stage of a training plan (see `training/plans/sam2.yaml`).

    Attributes
    ----------
    name : str
    minutes : float
        Budget, wall clock.
    lr : float
        Of AdamW; Muon gets twice as much.
    decay_from, decay_to : float
        From this share of the budget on, the rate falls linearly to `decay_to` times `lr`.
    warmup : int
        Steps of linear warm-up.
    balanced, video_balanced : int
        Steps with the balanced cross-entropy (fading out), images and sequences.
    aux_weight, correct, presence_weight : float
        Weight of the metric loss, share of steps with a correction click, weight of object presence.
    encoder_grad : bool
        Whether sequences train the image encoder too (a fifth dearer); otherwise only images do.
    ema : float
        Decay of the weight average, which is what is evaluated, carried on and saved.
    evaluations : int
    samples : SampleOptions
    rules : Rules
        What training asks for; what is measured while training keeps the defaults.
    """

    name: str
    minutes: Annotated[float, Field(gt=0)]
    lr: Annotated[float, Field(gt=0)] = 1e-3
    decay_from: Share = 0.0
    decay_to: Share = 0.1
    warmup: int = 25
    balanced: int = 0
    video_balanced: int = 0
    aux_weight: float = 0.4
    correct: Share = 0.15
    presence_weight: float = 1.0
    encoder_grad: bool = False
    ema: Share = 0.998
    evaluations: int = 2
    samples: Samples = SampleOptions()
    rules: Rules = Rules()


@dataclass(frozen=True, config=STRICT)
class Plan:
    """A training plan: which model, on how many ranks, with which stages."""

    model: Literal["sam2", "sam"]
    stages: tuple[Stage, ...]
    seed: int = 7
    ranks: Annotated[int, Field(ge=1)] = 2
    volumes: Annotated[int, Field(ge=1)] = 1200
    pool: str = "runs/miniature"
    start_from: str | None = None


def read_plan(path: Path, minutes: float | None = None) -> Plan:
    """Read a plan; `minutes` rescales the stages to that total.

    Raises
    ------
    StudyError
        If the file cannot be read, or for an unknown key or a value that cannot be; it names the file, the
        stage, and what is allowed.
    """
    content, _ = read_yaml(path, error=StudyError)
    try:
        plan = TypeAdapter(Plan).validate_python(content)
    except ValidationError as error:
        found = "; ".join(_readable(content, one) for one in error.errors())
        raise StudyError(path, f"{found}.", "Correct the file.") from error
    if minutes is None or not plan.stages:
        return plan
    factor = minutes / sum(stage.minutes for stage in plan.stages)
    return replace(plan, stages=tuple(replace(s, minutes=s.minutes * factor) for s in plan.stages))


def _readable(content: Any, found: dict[str, Any]) -> str:
    """Return one finding of pydantic in the words of the file: stage, key, and what is allowed."""
    place, kind = [str(part) for part in found["loc"]], Plan
    where = ".".join(place) or "the file"
    if len(place) > 1:  # "stages", the stage's number, and what is wrong in it
        number = int(place[1])
        stage = content["stages"][number]
        name = stage.get("name") if isinstance(stage, dict) else None
        where = f"stage {number + 1 if name is None else repr(name)}"
        where += f", {'.'.join(place[2:])}" if place[2:] else ""
        kind = {"samples": SampleOptions, "rules": Rules}.get(place[2], Stage) if place[3:] else Stage
    if found["type"] == UNKNOWN_KEY:
        known = [one.name for one in fields(kind) if (kind, one.name) != (SampleOptions, "rules")]
        return f"{where}: unknown key; known: {', '.join(known)}"
    message = found["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" + ("" if found["type"] == "missing" else f", not {found['input']!r}")


def as_content(plan: Plan) -> dict[str, Any]:
    """Return what a file of this plan would hold: what `read_plan` reads again."""
    return TypeAdapter(Plan).dump_python(plan, mode="json", exclude_defaults=True)


def learning_rate(stage: Stage, step: int, used: float) -> float:
    """Learning rate at a step when the share `used` (0 to 1) of the stage's budget is spent."""
    warm = min(1.0, (step + 1) / max(1, stage.warmup))
    fall = (used - stage.decay_from) / max(1e-6, 1 - stage.decay_from)
    return stage.lr * warm * (1 - (1 - stage.decay_to) * min(1.0, max(0.0, fall)))


def fading(step: int, length: int) -> float:
    """1 in the first half of `length` steps, then linearly to 0."""
    return 0.0 if length == 0 else min(1.0, max(0.0, 2 * (1 - step / length)))
