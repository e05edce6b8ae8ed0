"""One model, one case: a prepared case and a model in, rows of the tidy table out, stored unit by unit."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submodules=[
        "changed_volumes",
        "clicks",
        "correction_loops",
        "correction_rows",
        "facts",
        "label_map_units",
        "mask_choices",
        "masks",
        "parts",
        "propagation",
        "reference",
        "reference_loops",
        "rows",
        "scoring",
        "single_slices",
        "steps",
        "store",
        "units",
        "volumes",
    ],
    submod_attrs={
        "label_map_units": ["plan_label_map_units", "read_label_map", "score_label_map"],
        "masks": ["MaskStore"],
        "rows": ["evaluate_2d", "evaluate_3d"],
        "propagation": ["sweep"],
        "single_slices": ["candidates"],
        "store": ["Store"],
        "units": ["plan_units", "run_units"],
    },
)
