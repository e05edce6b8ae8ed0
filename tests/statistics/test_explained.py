"""What explains a loss is found where it is known, and so is what does not."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from medsam_nb.data.simulated.controlled import simulate_controlled
from medsam_nb.protocol.intensity import Intensity
from medsam_nb.protocol.volume import Case, Volume
from medsam_nb.statistics.explained import explained
from medsam_nb.statistics.variation import KINDS, border_contrast, on_the_way, slice_variation


def made_up(seed, patients=16, each=40, between=0.3):
    """A loss that depends on `cause`; `beside` goes with the cause, `noise` with nothing."""
    rng, rows = np.random.default_rng(seed), []
    for patient in range(patients):
        cause = rng.normal(size=each) + 0.5 * rng.normal()
        rows.append(
            pd.DataFrame(
                {
                    "loss": 0.5 * cause + between * rng.normal() + rng.normal(size=each),
                    "cause": cause,
                    "beside": 0.6 * cause + 0.8 * rng.normal(size=each),
                    "noise": rng.normal(size=each),
                    "object": np.where(np.arange(each) % 2, "organ", "vessel"),
                    "patient": f"p{patient}",
                    "stratum": f"s{patient % 2}",
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def test_the_slopes_are_those_of_the_mixed_model():
    rows = made_up(0)
    found = explained(rows, ["cause", "beside", "noise"], draws=50).set_index("predictor")
    scaled = rows.assign(**{n: rows[n] / rows[n].std() for n in ("cause", "beside", "noise")})
    fit = smf.mixedlm("loss ~ cause + beside + noise + object", scaled, groups="patient").fit(reml=True)
    assert found["slope"].to_dict() == pytest.approx({n: fit.params[n] for n in found.index}, abs=1e-4)
    share = float(fit.cov_re.iloc[0, 0]) / (float(fit.cov_re.iloc[0, 0]) + fit.scale)
    assert found["patient_share"].iloc[0] == pytest.approx(share, abs=1e-3)


def test_intervals_hold_what_is_true_and_a_companion_of_the_cause_explains_nothing():
    """Given the other two, the cause has the partial R squared 0.5^2 0.64 / (0.5^2 0.64 + 1) = 0.14."""
    covered, shown, least = 0, 0, []
    for seed in range(30):
        found = explained(made_up(seed), ["cause", "beside", "noise"], seed=seed, draws=200)
        found = found.set_index("predictor")
        covered += found.loc["cause", "r2_low"] <= 0.138 <= found.loc["cause", "r2_high"]
        shown += ((found["slope_low"] > 0) | (found["slope_high"] < 0))[["beside", "noise"]].sum()
        least.append(found["partial_r2"]["noise"])
        assert found.loc["cause", "slope_low"] > 0
    assert covered >= 25 and shown <= 10 and np.mean(least) < 0.01


def test_what_cannot_be_answered_has_a_note():
    few = explained(made_up(1, patients=4), ["cause"])
    assert "needs 6 patients" in few["note"][0] and few["slope"].isna().all()
    flat = explained(made_up(1).assign(same=1.0), ["cause", "same"], draws=20)
    assert flat["predictor"].tolist() == ["cause", "same"] and flat["note"][1] == "does not vary"
    again = explained(made_up(1), ["cause"], seed=3, draws=20)
    assert again.equals(explained(made_up(1), ["cause"], seed=3, draws=20))


def cases():
    mask = np.zeros((5, 40, 40), np.uint8)
    for z, size in enumerate((0, 10, 10, 20, 0)):
        mask[z, 8 : 8 + size, 8:18] = 1
    image = 100.0 * mask + np.indices((40, 40)).sum(axis=0) % 2
    volume = Volume.from_spacing(image.astype(np.float32), (2, 1, 1))
    return Case("made_up", "a", "simulated", volume, mask, {"organ": (1,)}, Intensity("min_max"))


def test_variation_is_that_of_neighbours_within_the_object():
    found = slice_variation(cases()).set_index("slice_index")
    assert found.index.tolist() == [1, 2, 3]
    assert found.loc[1, "shape_change"] == 0 and found.loc[2, "shape_change"] == 0.5
    assert found.loc[1, "size_change"] == 0 and found.loc[2, "size_change"] == pytest.approx(np.log(2))
    assert found.loc[1, "structure_change"] == pytest.approx(0) and found.loc[2, "grey_change"] > 0.1
    assert found.loc[3, list(KINDS)[:4]].isna().all() and found.loc[3, "border_contrast"] > 50
    flat = np.ones((20, 20))
    assert border_contrast(flat, flat > 0) != border_contrast(flat, flat > 0)  # nothing lies outside
    assert border_contrast(flat * 5, np.eye(20) > 0) == 0


def test_the_way_is_from_the_prompt_to_the_slice_and_has_no_gap():
    variation = pd.DataFrame({"data_set": "s", "case_id": "c", "object": "o", "slice_index": [2, 3, 4, 5, 7]})
    for number, kind in enumerate(KINDS):
        variation[kind] = np.array([1.0, 2, 3, np.nan, np.nan]) + number
    variation.loc[3, "border_contrast"] = 8.0
    rows = pd.DataFrame({"slice_index": [2, 3, 4, 5, 7], "distance_slices": [-2, -1, 0, 1, 3]})
    found = on_the_way(rows.assign(data_set="s", case_id="c", object="o"), variation)
    found = found.set_index("slice_index")
    assert found.index.tolist() == [2, 3, 5]  # slice 7 lies behind one without the object
    assert found["shape_change"].tolist() == [1.5, 2.0, 3.0]  # of 2-3-4, 3-4 and 4-5
    assert found["border_contrast"].tolist() == [5.5, 6.0, 8.0]  # of the slices 2 and 3, of 3, of 5


def test_a_greater_distance_between_slices_is_more_variation():
    means = []
    for count, mm in ((11, 2.0), (11, 10.0)):
        one = simulate_controlled("column", "ct", 5, shape=(count, 96, 96), spacing_mm=(mm, 3, 3))
        image = Volume.from_spacing(one.image, one.spacing_mm)
        objects = {"organ": (one.objects["organ"],)}
        case = Case("c", "a", "simulated CT", image, one.labels, objects, Intensity("window", -160, 240))
        means.append(slice_variation(case)[list(KINDS)].mean())
    assert (means[1][["shape_change", "size_change", "structure_change", "grey_change"]]
            > means[0][["shape_change", "size_change", "structure_change", "grey_change"]]).all()  # fmt: skip


def test_a_contrast_without_end_costs_the_ways_over_it_only():
    """Both rims of an object may be flat, as where a window cuts off all that is bright."""
    place = {"data_set": "s", "case_id": "c", "object": "o"}
    variation = pd.DataFrame([place | {"slice_index": z} | dict.fromkeys(KINDS, 0.5) for z in range(5)])
    rows = pd.DataFrame([place | {"slice_index": z, "distance_slices": z - 2} for z in range(5)])
    assert on_the_way(rows, variation)["slice_index"].tolist() == [0, 1, 3, 4]
    variation.loc[1, "border_contrast"] = np.inf
    kept = on_the_way(rows, variation)
    assert kept["slice_index"].tolist() == [3, 4] and kept["border_contrast"].eq(0.5).all()


def test_without_an_object_there_is_no_way_and_no_error():
    nothing = slice_variation(cases(), ["another"])
    assert nothing.empty
    rows = pd.DataFrame({"data_set": ["s"], "case_id": ["c"], "object": ["o"], "slice_index": [1],
                         "distance_slices": [1]})  # fmt: skip
    assert list(on_the_way(rows, nothing)[list(KINDS)].columns) == list(KINDS)
