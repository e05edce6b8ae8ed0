"""Gathers the documentation as a site: guide, API from the docstrings, the executed demonstration.

`make docs` runs it and then MkDocs, offline and with broken links as errors.
"""

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "runs" / "docs"  # not in git, as all that is made
GUIDE = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md"}
SETTINGS = """\
site_name: medsam-nb
site_description: How well does SAM 2 segment medical images, and how should it be prompted?
docs_dir: pages
site_dir: site
use_directory_urls: false
theme:
  name: material
  font: false
  features: [navigation.sections, search.highlight]
plugins:
  - search
  - mkdocstrings:
      handlers:
        python:
          paths: [{root}]
          options:
            docstring_style: numpy
            show_source: false
            show_submodules: true
            show_root_heading: true
            heading_level: 2
            members_order: source
            filters: ["!^_"]
markdown_extensions: [admonition, tables, toc]
validation: {{links: {{anchors: warn, not_found: warn}}}}
nav:
{nav}
"""


def linked(text: str, page: Path) -> str:
    """Return a page's text with links as they are on the site; what is no page becomes the file's name."""

    def link(found: re.Match) -> str:
        name, target, anchor = found[1], found[2], found[3] or ""
        path = (page.parent / target).resolve()
        names = {(ROOT / file).resolve(): place for place, file in GUIDE.items()}
        names |= {one.resolve(): one.name for one in (ROOT / "docs").glob("*.md")}
        if path in names:
            return f"[{name}]({names[path]}{anchor})"
        if path.suffix == ".png" and path.is_file():
            shutil.copy(path, BUILD / "pages" / path.name)
            return f"[{name}]({path.name})"
        if not path.exists():
            raise SystemExit(f"{page}: {target} is not there")
        return f"{name} (`{target}`)"

    return re.sub(r"\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)", link, text)


def packages() -> list[str]:
    """Return the folders of the package, as modules."""
    return sorted(f"medsam_nb.{path.parent.name}" for path in (ROOT / "medsam_nb").glob("*/__init__.py"))


def demonstration() -> list[str]:
    """Copy the executed demonstration, if it has been run; return its line of the menu."""
    run = ROOT / "runs" / "demo"
    if not (run / "index.html").is_file():
        return []
    target = BUILD / "pages" / "demo"
    for name in ("index.html", "provenance.json"):
        target.mkdir(exist_ok=True)
        shutil.copy(run / name, target / name)
    for folder in ("figures", "tables"):
        shutil.copytree(run / folder, target / folder, ignore=shutil.ignore_patterns("results_*"))
    shutil.copytree(run / "notebooks", target / "notebooks", ignore=shutil.ignore_patterns("*.ipynb"))
    executed = sorted((run / "notebooks").glob("*.html"))
    lines = "\n".join(f"- [{one.stem}](demo/notebooks/{one.name})" for one in executed)
    text = "# The demonstration\n\n[The report](demo/index.html), and every notebook as it was run:"
    text += f"\n\n{lines}\n"
    (BUILD / "pages" / "demonstration.md").write_text(text, encoding="utf-8")
    return ["  - The demonstration: demonstration.md"]


def gather() -> Path:
    """Write pages and settings below `runs/docs`; return the path of the settings."""
    shutil.rmtree(BUILD, ignore_errors=True)
    (BUILD / "pages" / "api").mkdir(parents=True)
    guide = GUIDE | {path.name: f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))}
    for place, name in guide.items():
        text = linked((ROOT / name).read_text(encoding="utf-8"), ROOT / name)
        (BUILD / "pages" / place).write_text(text, encoding="utf-8")
    for name in packages():
        page = BUILD / "pages" / "api" / f"{name.rpartition('.')[2]}.md"
        page.write_text(f"# {name}\n\n::: {name}\n", encoding="utf-8")
    nav = [f"  - {place}" for place in guide]
    nav += demonstration()
    nav += ["  - API:", *(f"      - {n}: api/{n.rpartition('.')[2]}.md" for n in packages())]
    settings = BUILD / "mkdocs.yml"
    settings.write_text(SETTINGS.format(root=ROOT, nav="\n".join(nav)), encoding="utf-8")
    return settings


if __name__ == "__main__":
    print(gather())
