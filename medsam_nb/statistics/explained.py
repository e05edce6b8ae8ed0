"""Which kind of variation explains a loss: a linear mixed model with patients, and partial R squared.

The model is loss ~ kinds of variation + object + (1 | patient). The ratio of its two variances is estimated
once by REML (statsmodels); with it the model is one of least squares of transformed rows (Fuller and
Battese 1973), so that it can be fitted to many resamplings of the patients. Partial R squared of a kind is
the share of what all others leave unexplained that it explains.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from statsmodels.regression.mixed_linear_model import MixedLM

from medsam_nb.statistics.resampling import patient_weights, percentiles

COLUMNS = [
    *("predictor", "slope", "slope_low", "slope_high", "partial_r2", "r2_low", "r2_high", "spread"),
    *("n_rows", "n_patients", "patient_share", "note"),
]
FEWEST_PATIENTS = 6
LEAST_RATIO = 1e-4  # of variances; what is less counts as none


def explained(
    rows: pd.DataFrame,
    predictors: Sequence[str],
    *,
    response: str = "loss",
    patient: str = "patient",
    stratum: str = "stratum",
    seed: int = 0,
    draws: int = 1000,
) -> pd.DataFrame:
    """Return how much of a response every predictor explains that the others do not.

    Parameters
    ----------
    rows : DataFrame
        With the predictors, the response, `object`, and whose rows they are.
    predictors : sequence of str
        Numbers. Those that do not vary are left out, with a note.
    response, patient, stratum : str
        Columns; what is drawn again is said by `resampling.patient_weights`.
    seed, draws : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        A row per predictor: `slope` of the response for one standard deviation (`spread`) of the predictor,
        `partial_r2`, 95 % percentile intervals of both over resampled patients; `patient_share` is the share
        of the unexplained variance that lies between patients. An interval of R squared never holds 0, as any
        predictor explains something of any sample: whether there is an effect, the slope says.
    """
    rows = rows.dropna(subset=[response, *predictors])
    rows = rows[np.isfinite(rows[list(predictors)]).all(axis=1)]
    varying = [name for name in predictors if len(rows) and rows[name].std() > 0]
    constant = [name for name in predictors if name not in varying]
    patients = rows[patient].nunique()
    if patients < FEWEST_PATIENTS or not varying:
        note = f"needs {FEWEST_PATIENTS} patients and a predictor that varies"
        blank = [{"predictor": name, "n_rows": len(rows), "n_patients": patients, "note": note}
                 for name in predictors]  # fmt: skip
        return pd.DataFrame(blank, columns=COLUMNS)
    scaled = rows[varying].astype(float)
    scaled = (scaled - scaled.mean()) / scaled.std()
    objects = pd.get_dummies(rows["object"], dtype=float).iloc[:, 1:]
    design = np.column_stack([np.ones(len(rows)), scaled, objects])
    value = rows[response].to_numpy(float)
    groups = rows[patient].to_numpy(str)
    ratio, note = _ratio(value, design, groups)
    products, strata = _products(value, design, groups, rows[stratum].to_numpy(str), ratio)
    slopes, r2 = _fit(products.sum(axis=0)[None], len(varying))
    drawn = np.einsum("dp,pij->dij", patient_weights(strata, draws, seed), products)
    low, high = percentiles(np.stack(_fit(drawn, len(varying)), axis=1))
    found = pd.DataFrame(
        {
            "predictor": varying,
            "slope": slopes[0],
            "slope_low": low[0],
            "slope_high": high[0],
            "partial_r2": r2[0],
            "r2_low": low[1],
            "r2_high": high[1],
            "spread": rows[varying].std().to_numpy(float),
            "n_rows": len(rows),
            "n_patients": patients,
            "patient_share": ratio / (1 + ratio),
            "note": note,
        }
    )
    blank = [{"predictor": name, "note": "does not vary"} for name in constant]
    found = pd.concat([found, pd.DataFrame(blank)]) if blank else found
    return found.reindex(columns=COLUMNS).set_index("predictor").loc[list(predictors)].reset_index()


def _ratio(value: np.ndarray, design: np.ndarray, groups: np.ndarray) -> tuple[float, str]:
    """Return the variance between patients over that within them, by REML, and a note if it is in doubt."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say of a variance at 0 is seen from the variance
        fit = MixedLM(value, design, groups).fit(reml=True)
        ratio = max(float(np.asarray(fit.cov_re)[0, 0]), 0.0) / float(fit.scale)
    doubts = [] if fit.converged else ["the fit did not converge"]
    return ratio, "; ".join(doubts + ["no variance between patients"] * (ratio < LEAST_RATIO))


def _products(
    value: np.ndarray, design: np.ndarray, groups: np.ndarray, strata: np.ndarray, ratio: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the products of transformed columns by patient, and every patient's stratum."""
    both = np.column_stack([design, value])
    names, member = np.unique(groups, return_inverse=True)
    products = np.zeros((len(names), both.shape[1], both.shape[1]))
    for place in range(len(names)):
        own = both[member == place]
        kept = 1 - 1 / np.sqrt(1 + len(own) * ratio)  # of the patient's mean, which is taken out
        own = own - kept * own.mean(axis=0)
        products[place] = own.T @ own
    first = np.array([strata[np.flatnonzero(member == place)[0]] for place in range(len(names))])
    return products, first


def _fit(products: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Return slopes and partial R squared of the wanted columns (after the first), shape (draws, wanted)."""
    squares, mixed, total = products[:, :-1, :-1], products[:, :-1, -1], products[:, -1, -1]
    inverse = np.linalg.pinv(squares, hermitian=True)
    slopes = (inverse @ mixed[..., None])[..., 0]
    residual = np.maximum(total - (slopes * mixed).sum(axis=1), 0)
    columns = slice(1, 1 + wanted)
    own = np.diagonal(inverse, axis1=1, axis2=2)[:, columns]
    with np.errstate(divide="ignore", invalid="ignore"):
        gained = slopes[:, columns] ** 2 / own  # what leaving a column out adds to the residual sum
        return slopes[:, columns], gained / (gained + residual[:, None])
