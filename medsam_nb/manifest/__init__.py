"""The data manifest: YAML files in, validated rows of data sets and checkpoints out."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submodules=["adaptation", "disclosure", "fine_tuned", "layouts", "reading", "rows", "schema"],
    submod_attrs={
        "disclosure": ["seen_warnings"],
        "reading": ["load_manifest"],
        "rows": ["Checkpoint", "DataSet", "Manifest"],
        "schema": ["state_table"],
    },
)
