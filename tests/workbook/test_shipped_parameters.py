"""What the shipped notebooks declare of their own is checked before a study runs."""

import pytest
import yaml

from medsam_nb.errors import WorkbookError
from medsam_nb.workbook.resolve import resolve_parameters
from medsam_nb.workbook.study import load_study


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("14_vary_slice_distance", {"other_design": "nonsense"}, "other_design.*nonsense"),
        ("14_vary_slice_distance", {"more_prompts": ["nonsense"]}, "more_prompts.*nonsense"),
        ("14_vary_slice_distance", {"data_sets": ["simulated_xray"]}, "single images"),
        ("14_vary_slice_distance", {"models": ["miniature_sam"]}, "has no memory"),
        ("15_vary_depth", {"depth_set": "column_cd"}, "'column_cd'.*'column_ct'"),
        ("15_vary_depth", {"modality_sets": ["same_torso"]}, "'same_torso'"),
        ("15_vary_depth", {"data_sets": ["mni152"]}, ""),  # organ is in the other sets
    ],
)
def test_the_shipped_notebooks_own_parameters_are_checked_before_the_run(tmp_path, name, given, message):
    path = tmp_path / "own.yaml"
    path.write_text(
        yaml.safe_dump({"name": "own", "title": "Own", "question": "?", "notebooks": {name: given}})
    )
    if message:
        with pytest.raises(WorkbookError, match=message):
            resolve_parameters(load_study(path), path)
    else:
        assert resolve_parameters(load_study(path), path)[name]["data_sets"] == ["mni152"]
