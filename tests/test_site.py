"""The documentation as a site: every page is in the menu, and links lead to pages or name a file."""

import re

import pytest
import yaml

from docs import site


def test_every_page_is_in_the_menu_and_every_link_leads_to_one(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "BUILD", tmp_path / "docs")
    settings = yaml.safe_load(site.gather().read_text(encoding="utf-8"))
    pages = tmp_path / "docs" / "pages"
    listed = [name for entry in settings["nav"] for name in ([entry] if isinstance(entry, str) else [])]
    named = next(entry["API"] for entry in settings["nav"] if isinstance(entry, dict) and "API" in entry)
    listed += [name for entry in named for name in entry.values()]
    assert {"index.md", "contributing.md", "report.md", "api/statistics.md"} <= set(listed)
    assert all((pages / name).is_file() for name in listed)
    for page in pages.glob("*.md"):
        for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert (pages / link).is_file(), f"{page.name}: {link}"


def test_a_link_to_nothing_stops_it(tmp_path):
    page = site.ROOT / "README.md"
    assert site.linked("[data](docs/data.md#fields)", page) == "[data](data.md#fields)"
    assert site.linked("[a](pyproject.toml)", page) == "a (`pyproject.toml`)"
    assert site.linked("[a](https://example.org)", page) == "[a](https://example.org)"
    with pytest.raises(SystemExit, match="is not there"):
        site.linked("[a](nowhere.md)", page)
