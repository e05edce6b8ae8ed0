"""The networks as a study sees them: a row of the manifest in, a model whose slices are encoded once out."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submodules=[
        "ahead",
        "attention",
        "checkpoints",
        "compiling",
        "encoding",
        "feature_folder",
        "features",
        "memory",
        "miniature",
        "predictor",
        "sharing",
        "state_dicts",
    ],
    submod_attrs={
        "checkpoints": ["Model", "describe_device", "describe_models", "load_model"],
        "features": ["SliceFeatures"],
    },
)
