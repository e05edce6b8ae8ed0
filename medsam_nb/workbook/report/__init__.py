"""The report of a study: every notebook leaves a section, and `index.html` leads through them.

Notebooks come in with sections, tables and figures (`sections`, `tables`); a reader gets a page (`page`).
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "sections": [
            *("NotebookRun", "add_provenance", "add_section", "read_provenance", "read_section"),
            *("keep_runs", "read_runs"),
        ],
        "tables": ["ROWS_SHOWN", "read_results", "save_table"],
        "page": ["write_report"],
        "pictures": ["CSS_PIXELS_PER_INCH"],
    },
)
