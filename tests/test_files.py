"""Text that crosses the border: JSON by the letter, single YAML values, names that steer a terminal."""

import re
import subprocess
import sys

import pytest

from medsam_nb.errors import InputError, StudyError, WorkbookError, printable
from medsam_nb.files import locate, parse_yaml, read_json, read_yaml, write_study_file

JSON = {
    "empty": (b"", "line 1: is no JSON: expecting value"),
    "cut": (b'{"a": 1,\n "b": [1, 2', "line 2: is no JSON"),
    "a list": (b"[]", "holds no JSON object"),
    "null": (b"null", "holds no JSON object"),
    "a word": (b'"a"', "holds no JSON object"),
    "NaN": (b'{"a": NaN}', "NaN is no number of JSON"),
    "infinity": (b'{"a": -Infinity}', "-Infinity is no number of JSON"),
    "a number that no float holds": (b'{"a": 1e999}', "1e999 is no number of JSON"),
    "a number of 5000 digits": (b'{"a": ' + b"9" * 5000 + b"}", "is no JSON"),
    "a name twice": (b'{"a": 1, "b": {"c": 1, "c": 2}}', "'c' stands twice in an object"),
    "deep lists": (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
    "deep objects": (b'{"a":' * 100_000, "nested too deeply"),
    "half a character": (b'{"a": "\\ud800"}', "surrogates not allowed"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "UTF-16"),
    "latin-1": (b'{"a": "\xfc"}', "line 1: byte 0xfc is no UTF-8"),
    "binary": (bytes(range(256)), "is no UTF-8"),
    "NUL": (b'{"a": 1}\0', "NUL"),
    "too large": (b'{"a": "' + b"x" * (5 << 20) + b'"}', "more than 4 MiB"),
    "more after the end": (b'{"a": 1} {"b": 2}', "extra data"),
    "YAML": (b"a: 1\n", "is no JSON"),
}


@pytest.mark.parametrize("name", JSON)
def test_a_record_that_is_no_json_object(name, tmp_path):
    data, words = JSON[name]
    (tmp_path / "record.json").write_bytes(data)
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        read_json(tmp_path / "record.json")
    assert "record.json" in str(caught.value) and len(str(caught.value)) < 500


def test_json_and_yaml_come_back_as_they_were_written(tmp_path):
    (tmp_path / "a.json").write_text('\ufeff{"a": [1, 2.5, null, "ü"], "b": {}}', encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"a": [1, 2.5, None, "ü"], "b": {}}
    (tmp_path / "a.yaml").write_text("a: [1, 2.5, ~, ü]\nb:\n  c: &c {d: true}\n  e: *c\n", encoding="utf-8")
    content, tree = read_yaml(tmp_path / "a.yaml")
    assert content == {"a": [1, 2.5, None, "ü"], "b": {"c": {"d": True}, "e": {"d": True}}}
    assert locate(tree, ("b", "c", "d")) == (3, "b.c.d")
    assert locate(tree, ("b", "e")) == (4, "b.e")
    assert locate(tree, ("a", 7)) == (1, "a.7")
    assert locate(tree, ("b", "missing")) == (2, "b.missing")


@pytest.mark.parametrize("value", ["[", "!!python/name:os.system", "&a [*a]", "2024-08-01", "012", "{1: 2}"])
def test_a_value_of_the_command_line_is_read_with_the_same_care(value):
    with pytest.raises(StudyError, match="^--set x, line \\d: "):
        parse_yaml(value, "--set x", error=StudyError)


def test_a_name_cannot_steer_the_terminal():
    error = WorkbookError("case \x1b[2J\r\u202e", "is \x9b31m", "Rename \ud800 it.\nTwice.")
    assert str(error) == "case \\x1b[2J\\r\\u202e: is \\x9b31m Rename \\ud800 it.\nTwice."
    assert printable("Müller 腎臓\n") == "Müller 腎臓\n"
    assert type(error)(*error.__reduce__()[1]).item == error.item


def test_the_command_tells_a_wrong_value_in_a_sentence():
    done = subprocess.run(
        [sys.executable, "-c", "from medsam_nb.cli import main; main()", "run", "none.yaml", "--set", "a=["],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: --set a, line 1: is no YAML")


def test_a_folder_where_a_file_belongs_is_named_and_left(tmp_path):
    (tmp_path / "rows.json").mkdir()
    with pytest.raises(StudyError, match="rows.json is a folder, where this file belongs; move it away"):
        write_study_file(tmp_path / "rows.json", b"{}")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]
