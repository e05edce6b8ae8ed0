"""Figures of the tidy table: rows and axes in, what was drawn out; only `style.save` writes files."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submodules=[
        "choices",
        "claims",
        "corrections",
        "depth",
        "designs",
        "distance",
        "fine_tuning",
        "grids",
        "memory",
        "models",
        "order",
        "prompts",
        "robustness",
        "slice_distance",
        "slices",
        "sparse_truth",
        "style",
        "subset",
        "words",
    ],
    submod_attrs={
        "style": ["PAGE_MM"],
        "subset": ["drawn_designs", "drawn_prompts"],
        "words": ["label", "metric_label"],
        "prompts": ["iou_by_prompt_2d", "iou_by_prompt_2d_of_models"],
        "designs": ["critical_difference", "design_heat_map", "design_ranking", "iou_by_design"],
        "distance": ["depth_and_spacing", "iou_by_distance", "retention_by_distance"],
        "models": ["sam2_against_sam", "sam2_minus_sam"],
        "claims": ["claims_forest"],
        "robustness": ["iou_by_share"],
        "corrections": ["iou_by_click", "iou_by_effort", "iou_by_loop"],
    },
)
