"""From downloads to verified cases: a row of the manifest and its raw files in, prepared cases out."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submodules=[
        "export",
        "fetch",
        "formats",
        "layouts",
        "mosaics",
        "patients",
        "prepare",
        "prepared",
        "quality",
        "segments",
        "simulated",
        "sources",
    ],
    submod_attrs={
        "export": ["write_dicom_segmentation", "write_masks"],
        "prepare": ["prepare_data_sets", "require_cases"],
        "prepared": ["case_folders", "load_case", "object_table", "prepared_cases", "write_result"],
        "quality": ["against_expected", "describe", "plausibility"],
        "mosaics": ["copy_mosaics"],
        "fetch": ["fetch_checkpoint"],
    },
)
