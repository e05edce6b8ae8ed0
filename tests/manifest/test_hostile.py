"""Hostile manifests: every one is refused quickly, by name, with its line and what to do; no code runs."""

import os
import re
import time

import pytest

from medsam_nb.errors import ManifestError
from medsam_nb.manifest.reading import load_manifest

OWN = """\
data_sets:
  mine:
    title: My spleens
    modality: CT
    dimension: 3
    objects: {spleen: [1]}
    intensity: {policy: window, low: -160, high: 240}
    layout: {name: nifti_pairs}
"""
SIMULATED = OWN.replace(
    "{name: nifti_pairs}",
    "{name: simulated, modality: ct, cases: [{seed: 1, shape: [8, 64, 64], spacing_mm: [5, 2, 2]}]}",
)
LISTED = OWN.replace(
    "{name: nifti_pairs}", "{name: listed, cases: [{case_id: a, image: a.nii, mask: b.nii}]}"
)
FETCHED = OWN + "    files: [{url: 'https://example.org/a.zip', path: a.zip}]\n"
WEIGHTS = """\
checkpoints:
  mine:
    family: sam2
    config: configs/sam2.1/sam2.1_hiera_t.yaml
    file: mine.pt
    url: https://example.org/mine.pt
    licence: mine
    citation: me
"""
NINE = ", ".join(["*a{}"] * 9)
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{NINE.replace('{}', str(n - 1))}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{NINE.replace('{}', str(n - 1))}]}}\n" for n in range(1, 12)
)
LINE = r"own\.yaml, line \d+: "

# Whole files: what they hold, and what is said.
FILES = {
    "empty": (b"", "is empty"),
    "only a comment": (b"# nothing\n", "is empty"),
    "a list": (b"- data_sets\n", "outermost level is no mapping"),
    "a word": (b"data_sets", "outermost level is no mapping"),
    "no rows": (b"data_sets: {}\ncheckpoints: {}\n", "holds no rows"),
    "another key": (b"datasets: {a: {}}\n", LINE + ".*unknown field; known: data_sets, checkpoints"),
    "rows as a list": (b"data_sets: [a]\n", LINE + "data_sets: .*dict"),
    "a row as a word": (b"data_sets: {a: b}\n", LINE + "data_sets.a: "),
    "a row without value": (b"data_sets: {a: }\n", LINE + "data_sets.a: "),
    "UTF-16": (OWN.encode("utf-16"), "UTF-16.*Save it as UTF-8"),
    "UTF-16 without a mark": (OWN.encode("utf-16-le"), "NUL.*Save it as UTF-8"),
    "UTF-32": (OWN.encode("utf-32"), "UTF-32.*Save it as UTF-8"),
    "latin-1": (OWN.replace("My", "Müller's").encode("latin-1"), "line 3: byte 0xfc is no UTF-8.*Save it"),
    "a zip archive": (b"PK\x03\x04\x14\0\0\0\x08\0", "Save it as UTF-8"),
    "gzip": (b"\x1f\x8b\x08\0\0\0\0\0", "byte 0x8b is no UTF-8"),
    "NUL": (OWN.encode() + b"\0", "NUL"),
    "a bell": (OWN.replace("My", "\a").encode(), LINE + r"the character '\\x07' is no text"),
    "an escaped colour": (OWN.replace("My spleens", '"\\e[31m"').encode(), LINE + ".*cannot be printed"),
    "turned text": (OWN.replace("My", "\u202e").encode(), LINE + "the character"),
    "too large": (b"#" * (5 << 20), "has more than 4 MiB"),
    "too many values": (b"data_sets: [" + b"1," * 1_500_000 + b"1]", LINE + "more than 250000 values"),
    "an alias bomb": (BOMB.encode(), LINE + "with what its aliases repeat"),
    "a bomb of merges": (MERGES.encode(), LINE + "with what its aliases repeat"),
    "recursion in a list": (b"data_sets: &a [*a]\n", LINE + "an alias stands within"),
    "recursion in a mapping": (b"data_sets: &a {b: *a}\n", LINE + "an alias stands within"),
    "an unknown alias": (b"data_sets: *a\n", LINE + "is no YAML: found undefined alias"),
    "deep lists": (b"data_sets: " + b"[" * 100_000, LINE + "more than 40 levels"),
    "deep mappings": (b"data_sets: " + b"{a: " * 100_000, LINE + "more than 40 levels"),
    "deep lines": ("\n".join(" " * n + "a:" for n in range(1500)).encode(), LINE + "more than 40 levels"),
    "deep by aliases": (
        ("a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 500))).encode(),
        LINE + "with what its aliases repeat",
    ),
    "a Python call": (b"data_sets: !!python/object/apply:os.mkdir ['ran']\n", LINE + ".*not allowed here"),
    "a Python name": (b"data_sets: !!python/name:os.system\n", LINE + ".*not allowed here"),
    "a tag of its own": (b"data_sets: !row {a: b}\n", LINE + ".*'!row' is not allowed here"),
    "a set": (b"data_sets: !!set {a, b}\n", LINE + ".*'set' is not allowed here"),
    "bytes": (b"data_sets: !!binary aGFsbG8=\n", LINE + ".*'binary' is not allowed here"),
    "two documents": (b"data_sets: {}\n---\ndata_sets: {}\n", LINE + ".*another document"),
    "a tabulator": (b"data_sets:\n\tmine: {}\n", LINE + "is no YAML"),
    "an open bracket": (b"data_sets: {mine: [\n", LINE + "is no YAML"),
    "an open quote": (b"data_sets: 'mine\n", LINE + "is no YAML"),
    "a list as key": (b"data_sets: {[1]: {}}\n", LINE + r"the key \[\.\.\.\] is no text"),
    "a mapping as key": (b"data_sets:\n  ? {a: b}\n  : c\n", LINE + r"the key \{\.\.\.\} is no text"),
    "a number as key": (b"data_sets: {1: {}}\n", LINE + "the key '1' is no text. Put it in quotes"),
    "a truth as key": (b"data_sets: {on: {}}\n", LINE + "the key 'on' is no text. Put it in quotes"),
    "a key twice": ((OWN + OWN).encode(), "line 9: 'data_sets' stands here again .first in line 1"),
    "a row twice": ((OWN + OWN[11:]).encode(), "line 9: 'mine' stands here again .first in line 2"),
    "a number of 5000 digits": (
        OWN.replace("240", "9" * 5000).encode(), LINE + "a number of 5000 characters"
    ),
    "a long hexadecimal number": (OWN.replace("240", "0x" + "f" * 99).encode(), LINE + "a number of 101"),
    "a number that is none": (OWN.replace("240", "!!float high").encode(), LINE + "'high' is no float"),
}  # fmt: skip
# A file that is right, what of it is changed to what, and what is said.
VALUES = {
    "an empty label list": (OWN, "[1]", "[]", "objects.spleen: .*at least 1"),
    "a repeated label": (OWN, "[1]", "[1, 2, 1]", "objects.spleen: the label 1 stands twice"),
    "a truth as label": (OWN, "[1]", "[true]", "objects.spleen.0: .*valid integer, not True"),
    "a text as label": (OWN, "[1]", "['1']", "objects.spleen.0: .*valid integer, not '1'"),
    "a fraction as label": (OWN, "[1]", "[1.0]", "objects.spleen.0: .*valid integer, not 1.0"),
    "background as label": (OWN, "[1]", "[0]", "objects.spleen.0: .*greater than or equal to 1, not 0"),
    "a negative label": (OWN, "[1]", "[-1]", "objects.spleen.0: .*greater than or equal to 1, not -1"),
    "a label beyond 16 bits": (OWN, "[1]", "[65536]", "objects.spleen.0: .*less than or equal to 65535"),
    "a label in no list": (OWN, "[1]", "1", "objects.spleen: .*valid list, not 1"),
    "no objects": (OWN, "{spleen: [1]}", "{}", "objects: .*at least 1 item"),
    "objects as a list": (OWN, "{spleen: [1]}", "[spleen]", "objects: .*valid dict"),
    "an object without a name": (OWN, "spleen:", "'':", "objects"),
    "an object that is ignored": (
        OWN, "    layout", "    ignored_labels: [1]\n    layout", "both an object and"
    ),
    "an ignored label twice": (OWN, "    layout", "    ignored_labels: [3, 3]\n    layout", "3 stands twice"),
    "a blank title": (OWN, "My spleens", "'  '", "title: .*pattern"),
    "a number as title": (OWN, "My spleens", "12", r"title: .*valid string, not 12 \(put it in quotes\)"),
    "a date as title": (OWN, "My spleens", "2024-08-01", "'timestamp' is not allowed here. Put it in quotes"),
    "a time as number": (OWN, "240", "12:30", "'12:30' is a number to base 8 or 60"),
    "an octal number": (OWN, "240", "0240", "'0240' is a number to base 8 or 60"),
    "four dimensions": (OWN, "dimension: 3", "dimension: 4", "dimension: .*2 or 3"),
    "a truth as dimension": (OWN, "dimension: 3", "dimension: true", "dimension: .*2 or 3"),
    "NaN as a limit": (OWN, "low: -160", "low: .nan", "intensity.low: .*finite number, not nan"),
    "infinity as a limit": (OWN, "240", ".inf", "intensity.high: .*finite number, not inf"),
    "a limit beyond 32 bits": (OWN, "240", "1.0e+39", "numbers up to 1e.30"),
    "a text as limit": (OWN, "240", "'240'", "intensity: high must be a number, not '240'"),
    "a truth as limit": (OWN, "240", "true", "intensity: high must be a number, not True"),
    "low above high": (OWN, "240", "-161", r"low \(-160.0\) must be below high \(-161.0\)"),
    "low at high": (OWN, "240", "-160", "must be below high"),
    "a percentile of 101": (
        OWN, "window, low: -160, high: 240", "percentile, low: 1, high: 101", "0 and 100"
    ),
    "an unknown policy": (OWN, "window", "windw", "policy: .*'window'"),
    "NaN as threshold": (
        OWN, "    layout", "    mask_threshold: .nan\n    layout", "mask_threshold: .*finite"
    ),
    "a word as truth": (
        OWN, "    layout", "    accuracy: 'no'\n    layout", "accuracy: .*valid boolean, not 'no'"
    ),
    "a number as truth": (
        OWN, "    layout", "    may_be_empty: 0\n    layout", "may_be_empty: .*boolean, not 0"
    ),
    "negative cases": (
        OWN, "    layout", "    expected: {cases: -1}\n    layout", "expected.cases: .*not -1"
    ),
    "a name of its own": (
        OWN, "    title", "    name: other\n    title", "the name of a row is its key, 'mine'"
    ),
    "an unknown layout": (OWN, "nifti_pairs", "nifti", "layout"),
    "no layout": (OWN, "    layout: {name: nifti_pairs}\n", "", "layout: Field required"),
    "a script as home page": (OWN, "    layout", "    home_page: 'javascript:x()'\n    layout", "home_page"),
    "a side of 0": (SIMULATED, "[8, 64, 64]", "[8, 0, 64]", "shape.1: .*16, not 0"),
    "a negative side": (SIMULATED, "[8, 64, 64]", "[8, 64, -64]", "shape.2: .*not -64"),
    "one slice": (SIMULATED, "[8, 64, 64]", "[1, 64, 64]", "shape.0: .*6, not 1"),
    "a side of a billion": (SIMULATED, "[8, 64, 64]", "[1000000000, 64, 64]", "shape.0: .*2048"),
    "a volume of 8 billion voxels": (
        SIMULATED, "[8, 64, 64]", "[2048, 2048, 2048]", "shape has 8,589,934,592"
    ),
    "two sides": (SIMULATED, "[8, 64, 64]", "[64, 64]", "shape.2"),
    "sides as text": (SIMULATED, "[8, 64, 64]", "8x64x64", "shape: "),
    "spacing 0": (SIMULATED, "[5, 2, 2]", "[5, 0, 2]", "spacing_mm.1: .*not 0"),
    "negative spacing": (SIMULATED, "[5, 2, 2]", "[-5, 2, 2]", "spacing_mm.0: .*not -5"),
    "NaN as spacing": (SIMULATED, "[5, 2, 2]", "[5, 2, .nan]", "spacing_mm.2: .*nan"),
    "spacing beyond any body": (SIMULATED, "[5, 2, 2]", "[1.0e+30, 2, 2]", "spacing_mm.0: .*100"),
    "a negative seed": (SIMULATED, "seed: 1", "seed: -1", "seed: .*not -1"),
    "a truth as seed": (SIMULATED, "seed: 1", "seed: true", "seed: .*valid integer, not True"),
    "a seed beyond the range": (SIMULATED, "seed: 1", "seed: 1000000", "seed: .*less than 1000000"),
    "a simulated case twice": (
        SIMULATED, "cases: [", "cases: [{seed: 1, shape: [9, 64, 64], spacing_mm: [5, 1, 1]}, ",
        "stands twice"
    ),
    "a case twice": (
        LISTED, "cases: [", "cases: [{case_id: a, image: c, mask: d}, ", "the case_id a stands twice"
    ),
    "no cases": (LISTED, "[{case_id: a, image: a.nii, mask: b.nii}]", "[]", "cases: .*at least 1"),
    "no masks": (LISTED, "mask: b.nii", "masks: {}", "masks: .*at least 1"),
    "an empty list of masks": (LISTED, "mask: b.nii", "masks: {spleen: []}", "masks.spleen: .*at least 1"),
    "no segments": (LISTED, "mask: b.nii", "mask: b.nii, segments: {}", "segments: .*at least 1"),
    "a number as case": (LISTED, "case_id: a", "case_id: 12", r"case_id: .*not 12 \(put it in quotes\)"),
    "a file outside": (LISTED, "image: a.nii", "image: ../../etc/passwd", "below the folder"),
    "an address of a file": (FETCHED, "https://example.org/a.zip", "file:///etc/passwd", "url: .*pattern"),
    "an address without host": (FETCHED, "example.org", "", "url: .*is no address"),
    "an address with a blank": (FETCHED, "a.zip'", "a b.zip'", "url: .*pattern"),
    "an address with a password": (FETCHED, "example.org", "me:word@example.org", "without a user's name"),
    "an address with a port of letters": (FETCHED, "example.org", "example.org:http", "url: .*[Pp]ort"),
    "an open bracket in an address": (FETCHED, "example.org", "[::1", "url: .*IPv6"),
    "a short hash": (FETCHED, "path:", "sha256: abc, path:", "sha256: .*pattern"),
    "a size of 0": (FETCHED, "path:", "size_bytes: 0, path:", "size_bytes: .*greater than 0, not 0"),
    "a size of an exabyte": (FETCHED, "path:", f"size_bytes: {10**18}, path:", "size_bytes: .*less than"),
    "a file twice": (
        FETCHED, "files: [", "files: [{url: 'https://example.org/b', path: a.zip}, ",
        "the path a.zip stands twice"
    ),
    "a file without a name": (FETCHED, "path: a.zip", "path: ''", "path: .*without empty or hidden parts"),
    "a folder as a file": (FETCHED, "path: a.zip", "path: a/", "path: .*without empty or hidden parts"),
    "a file here": (FETCHED, "path: a.zip", "path: ./a.zip", "path: .*without empty or hidden parts"),
    "a file of another drive": (FETCHED, "path: a.zip", "path: 'C:/a.zip'", "path: .*below the folder"),
    "a file's name of two lines": (FETCHED, "a.zip}", '"a\\nb"}', "path: .*cannot be printed"),
    "a file's name that no disk takes": (FETCHED, "path: a.zip", f"path: {'a' * 300}", "over 255"),
    "a file below a file": (
        FETCHED, "files: [", "files: [{url: 'https://example.org/b', path: A.zip/b}, ", "cannot lie below it"
    ),
    "an image that is its mask": (LISTED, "mask: b.nii", "mask: a.nii", "the image and a mask are the same"),
    "images that are their masks": (
        OWN, "name: nifti_pairs", "name: nifti_pairs, images: '{case}.nii', masks: '{case}.nii'",
        "name the same files",
    ),
    "a mask of another object": (
        LISTED, "mask: b.nii", "masks: {liver: [b.nii]}", "names masks of liver, which `objects` does not"
    ),
    "a rule that may never end": (OWN, "    layout", "    patient: ((a+)b)+$\n    layout", "may never end"),
    "a rule of many repeats": (OWN, "    layout", "    patient: (a+)b*c*d*e*\n    layout", "may never end"),
    "an unknown family": (WEIGHTS, "family: sam2", "family: sam3", "family: .*'sam2' or 'sam'"),
    "a configuration that is a path": (WEIGHTS, "config: configs", "config: /etc", "config: .*pattern"),
    "a configuration above": (WEIGHTS, "config: configs", "config: ../configs", "config: .*pattern"),
    "a configuration with an override": (WEIGHTS, "_t.yaml", "_t.yaml model.x=1", "config: .*pattern"),
    "a configuration of Hydra's": (WEIGHTS, "config: configs", "config: pkg://os", "config: .*pattern"),
    "an interpolated configuration": (WEIGHTS, "configs/sam2.1", "${oc.env:HOME}", "config: .*pattern"),
    "a configuration in a list": (WEIGHTS, "config: configs/sam2.1", "config: [a", "is no YAML"),
    "an image size of 0": (WEIGHTS, "    file", "    image_size: 0\n    file", "image_size: .*64, not 0"),
    "an odd image size": (
        WEIGHTS, "    file", "    image_size: 1000\n    file", "image_size: .*multiple of 64"
    ),
    "an image size of a million": (
        WEIGHTS, "    file", "    image_size: 1000000\n    file", "image_size: .*4096"
    ),
    "weights from nowhere": (WEIGHTS, "    url: https://example.org/mine.pt\n", "", "needs a `url`"),
    "an ftp address": (WEIGHTS, "https:", "ftp:", "url: .*pattern"),
}  # fmt: skip


def refusal(tmp_path, data: bytes) -> str:
    path = tmp_path / "own.yaml"
    path.write_bytes(data)
    started = time.monotonic()
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert time.monotonic() - started < 10
    message = str(caught.value)
    assert message.startswith(str(path)) and len(message) < 3000
    return message


def says(message: str, words: str) -> None:
    assert re.search(words, message, re.DOTALL), message


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_manifest(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, words = FILES[name]
    says(refusal(tmp_path, data), words)
    assert [path.name for path in tmp_path.iterdir()] == ["own.yaml"]  # nothing ran


@pytest.mark.parametrize("name", VALUES)
def test_a_value_without_meaning(name, tmp_path):
    text, old, new, words = VALUES[name]
    assert text.count(old) >= 1
    message = refusal(tmp_path, text.replace(old, new, 1).encode())
    says(message, LINE)
    says(message, words)


@pytest.mark.parametrize("text", [OWN, SIMULATED, LISTED, FETCHED, WEIGHTS])
@pytest.mark.parametrize("form", ["utf-8", "utf-8-sig", "dos"])
def test_what_they_were_made_of_is_right(text, form, tmp_path):
    data = text.replace("\n", "\r\n").encode() if form == "dos" else text.encode(form)
    (tmp_path / "own.yaml").write_bytes(data)
    manifest = load_manifest(tmp_path / "own.yaml")
    assert [*manifest.data_sets, *manifest.checkpoints] == ["mine"]


def test_rows_may_share_what_they_have_in_common(tmp_path):
    text = OWN.replace("mine:", "mine: &mine") + "  other: *mine\n  third: {<<: *mine, title: Third}\n"
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    rows = load_manifest(tmp_path / "own.yaml").data_sets
    assert {name: row.name for name, row in rows.items()} == {
        name: name for name in ("mine", "other", "third")
    }
    assert rows["third"].title == "Third" and rows["other"].title == "My spleens"


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ManifestError, match="is no file"):
            load_manifest(place)
