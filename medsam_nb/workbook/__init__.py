"""What notebooks and the command talk to: parameters in, executed notebooks and a report out."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submodules=[
        *(
            "differences",
            "explorer",
            "explorer_3d",
            "explorer_compare",
            "explorer_replay",
            "explorer_results",
            "explorer_scene",
            "explorer_session",
            "explorer_view",
        ),
        *(
            "correction_pictures",
            "fine_tuning",
            "fine_tuning_pictures",
            "depth_findings",
            "findings",
            "kept_masks",
            "kernels",
            "manuscript",
            "pictures",
            "report",
            "row_pictures",
            "run",
            "runner",
            "slice_findings",
            "study",
        ),
    ],
    submod_attrs={
        "explorer_results": ["ResultsView"],
        "explorer_scene": ["scene_of_case", "scene_of_file"],
        "explorer_compare": ["SideBySide"],
        "explorer_replay": ["demonstrate", "log_text", "replay"],
        "explorer_session": ["Session"],
        "explorer_view": ["Explorer"],
        "run": ["Run", "open_run"],
        "runner": ["run_study"],
        "study": ["load_study"],
        "manuscript": ["write_manuscript"],
        "explorer_3d": ["view3d"],
    },
)
