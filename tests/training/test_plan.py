"""Training plans: read whole or refused in words, written as they were read; the rate of a stage."""

from pathlib import Path

import pytest
import yaml

import training
from medsam_nb.errors import StudyError
from training.plan import Stage, as_content, fading, learning_rate, read_plan

PLANS = Path(training.__file__).parent / "plans"


def refused(tmp_path, text, words):
    path = tmp_path / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StudyError, match=f"(?s)plan.yaml.*{words}"):
        read_plan(path)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("{name: a, minutes: 1, learning: 3}", "stage 'a', learning: unknown key; known: .*lr"),
        ("{name: b, minutes: 1, rules: {thick: 3}}", "'b', rules.thick: unknown key; known: .*thin"),
        ("{name: b, minutes: 1, samples: {rules: {}}}", "'b', samples: 'rules' stand beside"),
        ("{name: b, minutes: 1, samples: {sise: 3}}", "samples.sise: unknown key; known: size"),
        ("{name: b, minutes: 1, samples: {size: big}}", "samples.size: .*integer.*'big'"),
        ("{minutes: 1}", "stage 1, name: Field required"),
        ("{name: c, minutes: 0}", "'c', minutes: .*greater than 0, not 0"),
        ("3", "stage 1: .*not 3"),
    ],
)
def test_a_stage_that_cannot_be_is_refused_with_its_place_and_what_is_allowed(tmp_path, stage, words):
    refused(tmp_path, f"model: sam2\nstages: [{stage}]\n", words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{model: unet, stages: []}", "model: .*'sam2' or 'sam', not 'unet'"),
        ("{model: sam2, stages: [], sead: 3}", "sead: unknown key; known: model, stages, seed"),
        ("{model: sam2}", "stages: Field required"),
        ("{model: sam, stages: [], volumes: 0}", "volumes: .*greater than or equal to 1, not 0"),
        ("model: [", "line 1: is no YAML"),
        ("[]", "outermost level is no mapping"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(tmp_path, text, words):
    refused(tmp_path, text, words)


def test_a_plan_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StudyError, match="none.yaml: "):
        read_plan(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["sam2", "sam"])
def test_a_shipped_plan_is_read_whole_and_written_as_it_was_read(name, tmp_path):
    shipped = PLANS / f"{name}.yaml"
    plan, content = read_plan(shipped), yaml.safe_load(shipped.read_text(encoding="utf-8"))
    for stage, given in zip(plan.stages, content["stages"], strict=True):
        for part in ("samples", "rules"):
            found = given.pop(part, {})
            assert {key: getattr(getattr(stage, part), key) for key in found} == found
        assert {key: getattr(stage, key) for key in given} == given
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(as_content(plan)), encoding="utf-8")
    assert read_plan(path) == plan
    halved = read_plan(shipped, sum(stage.minutes for stage in plan.stages) / 2)
    assert [s.minutes for s in halved.stages] == pytest.approx([s.minutes / 2 for s in plan.stages])


def test_the_rate_falls_with_the_budget_and_always_reaches_its_end():
    stage = Stage("s", 1, lr=1.0, decay_from=0.5, decay_to=0.1, warmup=10)
    assert learning_rate(stage, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(stage, 99, 0.5) == pytest.approx(1.0)
    assert learning_rate(stage, 99, 1.0) == pytest.approx(0.1)
    assert (fading(0, 100), fading(75, 100), fading(100, 100), fading(5, 0)) == (1.0, 0.5, 0.0, 0.0)
