"""A linear mixed model as a second opinion: does another description of the same data agree?

The model is value ~ level + (1 | data set) + (1 | data set : level) + (1 | patient): levels of a factor,
whose effect varies between data sets, and patients nested in data sets. For two levels that every patient
has, the differences within patients hold all there is to know of the effect, and follow difference ~ 1 + (1
| data set), which is what is fitted: the random intercept of a difference is the random slope of the
effect.
"""

import warnings

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from scipy import stats as scipy_stats

from medsam_nb.protocol.designs import DESIGN_FACTORS
from medsam_nb.statistics.inference import ALPHA, FEWEST_DATA_SETS, Sample
from medsam_nb.statistics.pooling import case_means, patient_means

MIXED_COLUMNS = [
    *("level", "reference", "estimate", "ci_low", "ci_high", "p", "degrees_of_freedom", "sd_between"),
    *("n_patients", "n_cases", "n_data_sets", "converged", "generalises_to", "note"),
]


def _with_slopes(data: pd.DataFrame) -> dict:
    """Fit difference ~ 1 + (1 | data set) by REML; t with one degree of freedom less than data sets."""
    k = data["data_set"].nunique()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        fit = smf.mixedlm("difference ~ 1", data, groups="data_set").fit(reml=True)
        between = float(np.sqrt(max(float(fit.cov_re.iloc[0, 0]), 0.0)))
        estimate, error = float(fit.fe_params.iloc[0]), float(fit.bse_fe.iloc[0])
    notes = sorted({str(warning.message).splitlines()[0][:90] for warning in seen})
    notes += [] if fit.converged else ["the fit did not converge"]
    return {
        "estimate": estimate,
        "error": error,
        "df": k - 1,
        "sd_between": between,
        "converged": bool(fit.converged),
        "note": "; ".join(notes),
    }


def _without_slopes(data: pd.DataFrame) -> dict:
    """Fit data sets as fixed effects; the estimate weighs them alike, the error is that within them."""
    k, n = data["data_set"].nunique(), len(data)
    formula = "difference ~ C(data_set, Sum)" if k > 1 else "difference ~ 1"
    fit = smf.ols(formula, data).fit()
    note = f"too few data sets ({k}) for a slope that varies between them: data sets are fixed effects"
    known = n > k
    return {
        "estimate": float(fit.params["Intercept"]),
        "error": float(fit.bse["Intercept"]) if known else float("nan"),
        "df": n - k,
        "sd_between": float("nan"),
        "converged": known,
        "note": note if known else f"{note}; no data set has two patients",
    }


def _fitted(data: pd.DataFrame) -> dict:
    """Fit the differences of one level to the reference."""
    sizes = data.groupby("data_set").size()
    if len(sizes) < FEWEST_DATA_SETS:
        return _without_slopes(data)
    if sizes.max() == 1:  # variation between and within data sets cannot be told apart
        d = data["difference"]
        error = float(d.std(ddof=1) / np.sqrt(len(d)))
        found = {
            "estimate": float(d.mean()),
            "error": error,
            "df": len(d) - 1,
            "sd_between": float("nan"),
        }
        return found | {
            "converged": True,
            "note": "one patient per data set: the t test of their differences",
        }
    try:
        return _with_slopes(data)
    except (np.linalg.LinAlgError, ValueError) as error:
        missing = dict.fromkeys(("estimate", "error", "df", "sd_between"), float("nan"))
        return missing | {"converged": False, "note": f"no fit: {error}"}


def mixed_model(table: pd.DataFrame, factor: str, task: str = "3d", metric: str = "iou") -> pd.DataFrame:
    """Fit a linear mixed model as a check: one fixed effect that varies between data sets, nested patients.

    Parameters
    ----------
    table : DataFrame
        Rows of one model (or of two where the factor is "model").
    factor : str
        Column whose levels are compared; the first level in alphabetical order is the reference.
        Other factors are averaged over, within a case.
    task : {"2d", "3d"}
    metric : str

    Returns
    -------
    DataFrame
        One row per level but the reference: `level`, `reference`, `estimate`, `ci_low`, `ci_high`, `p` (of
        t with `degrees_of_freedom`, not corrected), `sd_between` (standard deviation of the effect between
        data sets), `n_patients`, `n_cases`, `n_data_sets`, `converged`, `generalises_to`, `note`. From six
        data sets on `degrees_of_freedom` is their number less one: the effect is known only as often as it
        was drawn. With fewer, data sets are fixed effects and `degrees_of_freedom` is patients less data
        sets. Where the fit fails or a variance is at its boundary, `note` says so, and `converged` whether
        to trust the row.
    """
    cases = case_means(table[table["task"] == task], [factor], metric)
    if cases[factor].nunique() < 2:
        return pd.DataFrame(columns=MIXED_COLUMNS)
    patients = patient_means(cases, [factor])
    place = ["data_set", "patient_id"]
    wide = patients.pivot(index=place, columns=factor, values="value").astype(float)
    counts = patients.groupby(place)["n_cases"].max()
    reference, *levels = sorted(wide.columns)
    found = []
    for level in levels:
        d = (wide[level] - wide[reference]).dropna()
        if len(d) < 3:
            continue
        data = pd.DataFrame({"difference": d.to_numpy(), "data_set": d.index.get_level_values(0).astype(str)})
        fit = _fitted(data)
        reach = scipy_stats.t.ppf(1 - ALPHA / 2, fit["df"]) * fit["error"] if fit["df"] > 0 else float("nan")
        t = fit["estimate"] / fit["error"] if fit["error"] else float("nan")
        found.append(
            {
                **fit,
                "level": level,
                "reference": reference,
                "ci_low": fit["estimate"] - reach,
                "ci_high": fit["estimate"] + reach,
                "p": float(2 * scipy_stats.t.sf(abs(t), fit["df"])) if fit["df"] > 0 else float("nan"),
                "degrees_of_freedom": fit["df"],
                "n_patients": len(d),
                "n_cases": int(counts.reindex(d.index).sum()),
                "n_data_sets": data["data_set"].nunique(),
                "generalises_to": Sample(d.to_numpy(), data["data_set"].to_numpy()).generalises_to,
            }
        )
    return pd.DataFrame(found, columns=MIXED_COLUMNS)


def mixed_models(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mixed model of every factor of the 3D designs, one below the other, with `factor`."""
    fits = [mixed_model(table, factor).assign(factor=factor) for factor in DESIGN_FACTORS]
    return pd.concat([fit for fit in fits if len(fit)] or fits[:1], ignore_index=True)
