"""What notebooks and the command talk to: parameters in, executed notebooks and a report out."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submodules=[
        "differences",
        "explorer",
        "findings",
        "kernels",
        "manuscript",
        "pictures",
        "report",
        "run",
        "runner",
        "study",
    ],
    submod_attrs={
        "run": ["Run", "open_run"],
        "runner": ["run_study"],
        "study": ["load_study"],
        "manuscript": ["write_manuscript"],
    },
)
