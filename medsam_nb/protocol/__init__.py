"""What is measured: masks, prompts, designs, metrics and the tidy table.

In come arrays, out come prompts, what is to be predicted, values and the columns of rows. NumPy and pandas:
no network, no file format.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submodules=[
        "corrections",
        "designs",
        "directions",
        "effort",
        "intensity",
        "metrics",
        "options",
        "prompt_sources",
        "prompts",
        "prompts_file",
        "prompts_placed",
        "seeds",
        "splits",
        "table",
        "tracks",
        "volume",
        "volume_changes",
        "volume_repairs",
    ],
    submod_attrs={
        "designs": ["ALL_DESIGNS", "Design", "chosen_designs"],
        "options": ["MemoryWindow", "PropagationOptions", "windows"],
        "prompt_sources": ["PromptSource", "parse_source"],
        "prompts": ["Prompt", "prompt_3d", "prompts_2d"],
        "metrics": ["iou"],
        "splits": ["folds_by_patient", "split_by_patient"],
        "volume": ["Case", "Volume"],
        "volume_changes": ["VolumeChange", "shown_volume"],
        "volume_repairs": ["VolumeRepair", "repaired"],
    },
)
