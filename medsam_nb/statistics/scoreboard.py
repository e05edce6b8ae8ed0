"""The scoreboard: what a table says of every claim of the study.

All tests of a scoreboard are one Holm family, but for those of H13, which asks of every object and
would make the others' threshold depend on the number of objects: they are a family of their own
(`FAMILIES` says so, and that it was not decided beforehand). A claim is supported where all its
tests agree with it after correction, supported in part where some of its tests cannot be made with
this table and all others agree, contradicted where one of them shows the opposite, and inconclusive
otherwise. What the table cannot test is said, with what it would take.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from medsam_nb.protocol.designs import DESIGN_FACTORS
from medsam_nb.statistics import paired
from medsam_nb.statistics.claims import CLAIMS, H13, HIGH_IOU, deep_rows
from medsam_nb.statistics.pooling import NEVER_MIXED, Comparison, case_means, check_table
from medsam_nb.statistics.published import MODEL as PUBLISHED_MODEL
from medsam_nb.statistics.published import sam_table

NEGLIGIBLE = 0.01  # IoU; a difference can be certain and yet not matter
VERDICTS = ("supported", "supported in part", "contradicted", "inconclusive", "not testable")
FAMILIES = (
    "The tests of the claims are one Holm family. The objects of H13 are another, so that how many objects a "
    "study has does not move the threshold of the other claims; this was not decided beforehand but after a "
    "first look at the demonstration's table with an untrained model, where it moved several verdicts across "
    "0.05, and has been fixed since."
)


def model_parts(table: pd.DataFrame, sam2: str = "", sam: str = "") -> dict[str, str]:
    """Return which model plays SAM 2 and which SAM: those named, or the only ones of their family."""
    names = sorted(table["model"].dropna().unique())
    family = {"sam2": [n for n in names if "sam2" in n], "sam": [n for n in names if "sam2" not in n]}
    parts = {}
    for part, wish in (("sam2", sam2), ("sam", sam)):
        if wish in names:
            parts[part] = wish
        elif not wish and len(family[part]) == 1:
            parts[part] = family[part][0]
    return parts


def _agreement(relation: str, estimate: float, low: float, high: float, p: float) -> str:
    """Return the verdict of one test, given its corrected p value and interval."""
    if not np.isfinite(p):
        return "inconclusive"
    significant = p < paired.ALPHA
    if relation in ("=", ">="):
        return "supported" if significant else "inconclusive"
    agrees = estimate > 0 if relation == ">" else estimate < 0
    if significant and estimate != 0:
        return "supported" if agrees else "contradicted"
    return "inconclusive"


def _high_objects(table: pd.DataFrame, models: Mapping[str, str], resamples: int, seed: int) -> list[dict]:
    """Test, for every object's best design with a box or mask, whether its mean exceeds the bar."""
    rows = deep_rows(table, models)
    rows = rows[rows["prompt"].isin(["one_box", "mask"])].drop(columns="failed")
    found = []
    for (data_set, name), group in rows.groupby(["data_set", "object"], dropna=False):
        cells = [*DESIGN_FACTORS, *NEVER_MIXED]
        means = case_means(group, cells)
        best = means.groupby(cells[:4])["value"].mean().idxmax()
        values = means[(means[cells[:4]] == list(best)).all(axis=1)]["value"].to_numpy(float)
        pairs = pd.DataFrame({"data_set": data_set, "a": values, "b": HIGH_IOU})
        one_sided = Comparison("claim", {}, {}, alternative="greater")
        item = paired.compare_pairs(pairs, one_sided, resamples, seed)
        item["note"] = "; ".join(filter(None, [item["note"], "design chosen on the same cases: optimistic"]))
        found.append(
            {"test": f"{data_set}: {name}, {'/'.join(best)}, against {HIGH_IOU}", "scale": "IoU", **item}
        )
    return found


def scoreboard(
    table: pd.DataFrame,
    sam2: str = "",
    sam: str = "",
    margin: float = 0.05,
    resamples: int = paired.RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Return what the table says of every claim.

    Parameters
    ----------
    table : DataFrame
        The tidy table.
    sam2, sam : str
        Models that play the two parts; may be left out where the table has one of each.
    margin : float
        Of "about as good" (H1) and "at least as good" (H3, H4), IoU.

    Returns
    -------
    DataFrame
        One row per test: the claim (`claim`, `sentence`, `source`, `relation`, `needs`), the test, its
        `scale` ("IoU" or "rank correlation"), effects and interval as in `paired.compare`, `finding`
        (of the test), `verdict` (of the claim) and `because` (which of its tests say what, and what is
        needed for those that cannot be made). The case is the unit. For H13 a single object above the
        bar is enough.
    """
    checked = check_table(table)
    models = model_parts(checked, sam2, sam)
    rows = []
    for claim in (*CLAIMS, H13):
        head = {"claim": claim.number, "sentence": claim.sentence, "source": claim.source}
        head |= {"relation": claim.relation, "needs": claim.needs}
        if claim is H13:
            rows += [head | item for item in _high_objects(checked, models, resamples, seed)] or [
                head | {"test": f"objects above {HIGH_IOU}", "n": 0}
            ]
            continue
        kind = {"=": "equivalence", ">=": "not_worse"}.get(claim.relation, "difference")
        declared = Comparison("claim", {}, {}, test=kind, margin=margin)
        for name, pairs in claim.tests:
            values = pairs(checked, models)
            item = paired.compare_pairs(values, declared, resamples, seed) if len(values) else {"n": 0}
            if claim.relation == ">=" and item["n"]:
                # the other side of the claim: shown lower than its rival, and by more than the margin
                worse = paired.compare_pairs(values, replace(declared, test="difference"), resamples, seed)
                item["worse"] = worse["p"] < paired.ALPHA and item["ci_high"] < -margin
            elif claim.relation == "=" and item["n"]:
                item["worse"] = item["ci_high"] < -margin or item["ci_low"] > margin
            scale = "rank correlation" if "rank correlation" in name else "IoU"
            rows.append(head | {"test": name, "scale": scale} | item)
    columns = ["claim", "sentence", "source", "relation", "test", "scale", "n", "n_data_sets", "n_zero"]
    columns += [
        "mean_a",
        "mean_b",
        "median_difference",
        "ci_low",
        "ci_high",
        "ci_level",
        "rank_biserial",
        "superiority",
        "p",
    ]
    columns += [
        "p_holm",
        "family",
        "n_tests",
        "finding",
        "verdict",
        "because",
        "method",
        "interval",
        "needs",
        "note",
    ]
    board = pd.DataFrame(rows).reindex(columns=[*columns, "worse"])
    board["p"] = board["p"].astype(float)
    board["family"] = np.where(board["claim"] == H13.number, "objects", "claims")
    board["p_holm"] = board.groupby("family")["p"].transform(lambda p: paired.holm(p.to_numpy(float)))
    board["n_tests"] = board.groupby("family")["p"].transform("count").astype(int)
    board["finding"] = [
        "not testable"
        if not row.n
        else "contradicted"
        if row.worse is True
        else _agreement(row.relation, row.median_difference, row.ci_low, row.ci_high, row.p_holm)
        for row in board.itertuples()
    ]
    board["verdict"] = board.groupby("claim", sort=False)["finding"].transform(
        lambda found: _verdict(found.tolist(), any_is_enough=found.name == "H13")
    )
    reasons = {claim: _because(tests) for claim, tests in board.groupby("claim", sort=False)}
    board["because"] = board["claim"].map(reasons)
    few = board["n"].between(1, paired.FEWEST_FOR_TEST - 1)
    board["note"] = board["note"].astype(object).fillna("").astype(str)
    board.loc[few & (board["note"] == ""), "note"] = "few cases"
    tiny = board["finding"].isin(["supported", "contradicted"]) & board["relation"].isin([">", "<"])
    tiny &= board["scale"].eq("IoU") & board["median_difference"].abs().lt(NEGLIGIBLE)
    board.loc[tiny, "note"] = f"smaller than {NEGLIGIBLE:g} IoU: of no practical weight"
    return board[columns].reset_index(drop=True)


def _verdict(findings: list[str], any_is_enough: bool = False) -> str:
    """Return the verdict of a claim from the findings of its tests."""
    testable = [finding for finding in findings if finding != "not testable"]
    if not testable:
        return "not testable"
    if any_is_enough:
        # that none was shown to pass the bar does not show that none does
        return "supported" if "supported" in testable else "inconclusive"
    if "contradicted" in testable:
        return "contradicted"
    if any(finding != "supported" for finding in testable):
        return "inconclusive"
    return "supported" if len(testable) == len(findings) else "supported in part"


def _because(tests: pd.DataFrame) -> str:
    """Return in a sentence which tests of one claim say what, and what the missing ones need."""
    found = tests["finding"].value_counts()
    parts = [f"{found[name]} of {len(tests)} tests {name}" for name in VERDICTS if name in found]
    missing = tests[tests["finding"] == "not testable"]
    if len(missing) and len(missing) < len(tests):
        parts.append("not testable: " + ", ".join(missing["test"]))
    if len(missing):
        parts.append(f"needs {tests['needs'].iloc[0]}")
    return "; ".join(parts)


def published_scoreboard(resamples: int = paired.RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """Return the claims that SAM's published results can test: H2 and H3, the object as unit."""
    table = sam_table().assign(case_id=lambda t: t["data_set"] + ": " + t["object"])
    board = scoreboard(
        table.astype({"case_id": "string"}), sam=PUBLISHED_MODEL, resamples=resamples, seed=seed
    )
    board = board[board["claim"].isin(["H2", "H3"]) & (board["n"] > 0)]
    return board.assign(note="published means per object; objects of one data set are not independent")
