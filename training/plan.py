"""A training study: its stages, its file, and the learning rate of a stage."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

from medsam_nb.errors import StudyError
from medsam_nb.files import read_yaml
from medsam_nb.finetuning.targets import Rules
from training.samples import SampleOptions


@dataclass(frozen=True)
class Stage:
    """One stage of a training study (see `plans/sam2.yaml`).

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
    samples : dict
        Fields of `samples.SampleOptions`.
    rules : dict
        Fields of `targets.Rules`; what is measured while training keeps the defaults.
    """

    name: str
    minutes: float
    lr: float = 1e-3
    decay_from: float = 0.0
    decay_to: float = 0.1
    warmup: int = 25
    balanced: int = 0
    video_balanced: int = 0
    aux_weight: float = 0.4
    correct: float = 0.15
    presence_weight: float = 1.0
    encoder_grad: bool = False
    ema: float = 0.998
    evaluations: int = 2
    samples: dict = field(default_factory=dict)
    rules: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A training study: which model, on how many ranks, with which stages."""

    model: str
    stages: tuple[Stage, ...]
    seed: int = 7
    ranks: int = 2
    volumes: int = 1200
    pool: str = "runs/miniature"
    start_from: str | None = None


def read_plan(path: Path, minutes: float | None = None) -> Plan:
    """Read a study file; `minutes` rescales the stages to that total.

    Raises
    ------
    StudyError
        For an unknown or missing key or an unknown model, naming the file; see also `read_yaml`.
    """
    content, _ = read_yaml(path, error=StudyError)
    try:
        return _as_study(path, content, minutes)
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"has no {error}" if isinstance(error, KeyError) else f"is no training plan ({error})"
        raise StudyError(path, f"{reason}.", "See training/plans/sam2.yaml.") from error


def _as_study(path: Path, content: dict, minutes: float | None) -> Plan:
    known = {one: {f.name for f in fields(one)} for one in (Stage, SampleOptions, Rules)}
    for stage in content["stages"]:
        unknown = set(stage) - known[Stage]
        unknown |= set(stage.get("samples", {})) - (known[SampleOptions] - {"rules"})
        unknown |= set(stage.get("rules", {})) - known[Rules]
        if unknown:
            raise StudyError(
                path, f"stage {stage.get('name')!r} has unknown keys {sorted(unknown)}.", "Correct the file."
            )
    if content["model"] not in ("sam2", "sam"):
        raise StudyError(path, f"unknown model {content['model']!r}.", "Use 'sam2' or 'sam'.")
    factor = 1.0 if minutes is None else minutes / sum(s["minutes"] for s in content["stages"])
    stages = tuple(Stage(**{**s, "minutes": s["minutes"] * factor}) for s in content["stages"])
    return Plan(**{**content, "stages": stages})


def learning_rate(stage: Stage, step: int, used: float) -> float:
    """Learning rate at a step when the share `used` (0 to 1) of the stage's budget is spent."""
    warm = min(1.0, (step + 1) / max(1, stage.warmup))
    fall = (used - stage.decay_from) / max(1e-6, 1 - stage.decay_from)
    return stage.lr * warm * (1 - (1 - stage.decay_to) * min(1.0, max(0.0, fall)))


def fading(step: int, length: int) -> float:
    """1 in the first half of `length` steps, then linearly to 0."""
    return 0.0 if length == 0 else min(1.0, max(0.0, 2 * (1 - step / length)))
