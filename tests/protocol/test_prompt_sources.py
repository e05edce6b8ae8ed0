"""Names of sources: understood, or refused before anything runs."""

import numpy as np
import pytest

from medsam_nb.errors import InputError, StudyError
from medsam_nb.protocol.prompt_sources import parse_source
from medsam_nb.protocol.prompts import Prompt
from medsam_nb.protocol.prompts_file import lines_of, write_prompts
from medsam_nb.protocol.volume import Case, Volume

MASK = np.zeros((30, 30), bool)
MASK[5:25, 8:20] = True


def case():
    labels = np.zeros((3, 30, 30), np.uint8)
    labels[1] = MASK
    image = Volume.from_spacing(
        np.random.default_rng(0).normal(size=labels.shape).astype(np.float32), (2.0, 1.0, 1.0)
    )
    return Case("set", "one", "CT", image, labels, {"organ": (1,)})


@pytest.mark.parametrize(
    "name", ["trueth", "jittered", "jittered:0.1", "jittered:half:0", "jittered:0.5:0", "no.jsonl"]
)
def test_what_is_not_known_is_refused(name):
    with pytest.raises(StudyError, match="jittered:SHARE:REPEAT"):
        parse_source(name)


def test_repeats_differ_and_a_share_of_zero_is_the_truth():
    prompt, parts = Prompt(box=(8, 5, 19, 24)), (1, "case", "one_box", 0)
    boxes = [parse_source(f"jittered:0.1:{k}").displaced(prompt, MASK, parts).box for k in range(8)]
    assert len(set(boxes)) > 4 and prompt.box not in boxes
    for name in ("truth", "jittered:0:3"):
        assert parse_source(name).displaced(prompt, MASK, parts) is prompt
    assert parse_source("jittered:0.10:3").name == "jittered:0.1:3"
    with pytest.raises(InputError, match="mask"):
        parse_source("jittered:0.1:0").displaced(Prompt(mask=MASK), MASK, parts)


def test_a_file_is_known_by_its_content(tmp_path):
    path = tmp_path / "hand.jsonl"
    write_prompts(path, lines_of(case(), "organ", 1, Prompt(((10, 10),)), time="2026-01-01T00:00:00+00:00"))
    source = parse_source(str(path))
    assert source.name.startswith("file:hand.jsonl:") and source.given(case())["organ", 1].points == (
        (10, 10),
    )
    write_prompts(path, lines_of(case(), "organ", 1, Prompt(((11, 10),))))
    assert parse_source(path).name != source.name
    with pytest.raises(InputError, match="has changed"):
        source.given(case())
    other = Case("set", "two", "CT", case().image, case().labels, case().objects)
    with pytest.raises(InputError, match="no prompt for set/two"):
        parse_source(path).given(other)
