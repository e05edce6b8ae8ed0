"""A made-up key of a unit of work, for tests of the store."""

from medsam_nb.protocol.table import RunKey


def run_key(**changes) -> RunKey:
    """Return a complete key; `changes` replace its fields."""
    fields = {
        "task": "2d", "data_set": "set", "case_id": "case", "patient_id": "case", "data_sha256": "d" * 64,
        "model": "model", "checkpoint_sha256": "c" * 64, "network": "{}", "device": "cpu", "dtype": "float32",
        "device_facts": "{}", "seed": 1, "parameters": "{}", "code_sha256": "f" * 64, "packages": "{}",
    }  # fmt: skip
    return RunKey(**(fields | changes))
