"""From rows to inference: the tidy table in, means, effects with intervals, tests and verdicts out."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submodules=[
        "change_point",
        "claim_values",
        "claims",
        "declarations",
        "depth",
        "effort",
        "fine_tuning",
        "explained",
        "findings",
        "inference",
        "mixed",
        "multiple_testing",
        "paired",
        "pairing",
        "pooling",
        "published",
        "published_sam2",
        "rankings",
        "released_scripts",
        "resampling",
        "retention",
        "scoreboard",
        "selection",
        "shown_cases",
        "signs",
        "slice_distance",
        "sparse_truth",
        "variation",
    ],
    submod_attrs={
        "pooling": ["case_means", "check_table"],
        "paired": ["compare", "summarise"],
        "rankings": ["rank_designs"],
    },
)
