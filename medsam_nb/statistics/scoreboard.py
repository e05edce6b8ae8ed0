"""The scoreboard: what a table says of every claim of the study.

All tests of a scoreboard are one Holm family, but for those of H13, which asks of every object and would make
the others' threshold depend on the number of objects: they are a family of their own (`FAMILIES` says so, and
that it was not decided beforehand). A claim is supported where all its tests agree with it after correction,
supported in part where some of its tests cannot be made with this table and all others agree, contradicted
where one of them shows the opposite, and inconclusive otherwise. A difference that is certain but smaller
than `NEGLIGIBLE` is "of no practical weight". What the table cannot test is said, with what it would take.
With too few data sets a verdict is about these only, and says so.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from medsam_nb.statistics.claims import (
    CLAIMS,
    H13,
    HIGH_IOU,
    chosen_and_tested,
    deep_rows,
    designs_of_patients,
)
from medsam_nb.statistics.inference import ALPHA, NONE, THESE
from medsam_nb.statistics.paired import EFFECTS, compare_pairs, with_holm
from medsam_nb.statistics.pooling import Comparison, check_table
from medsam_nb.statistics.published import MODEL as PUBLISHED_MODEL
from medsam_nb.statistics.published import sam_table

NEGLIGIBLE = 0.01  # IoU; a difference can be certain and yet not matter
WEIGHTLESS = "of no practical weight"
WITHIN = "within these data sets"
FINDINGS = ("supported", "contradicted", WEIGHTLESS, "inconclusive", "not testable")
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


def _finding(row) -> tuple[str, str]:
    """Return what one test says of its claim, and why where it says less than its p value.

    The interval is Holm's, on the same units as p; no finding while it holds what would contradict it.
    """
    if not row.n:
        return "not testable", ""
    if not np.isfinite(row.p_holm) or row.generalises_to == NONE:
        return "inconclusive", ""
    significant, margin = row.p_holm < ALPHA, row.margin
    if row.relation == "=":
        outside = row.holm_low > margin or row.holm_high < -margin
        return ("supported" if significant else "contradicted" if outside else "inconclusive"), ""
    if row.relation == ">=":
        worse = row.holm_high < -margin
        return ("supported" if significant else "contradicted" if worse else "inconclusive"), ""
    if row.relation == "<<":
        nearer = row.holm_low > -margin
        return ("supported" if significant else "contradicted" if nearer else "inconclusive"), ""
    if not significant or row.difference == 0:
        return "inconclusive", ""
    if row.difference * row.mean_difference < 0:
        return "inconclusive", "ranks and mean disagree in direction"
    if row.scale == "IoU" and abs(row.difference) < NEGLIGIBLE:
        return WEIGHTLESS, f"smaller than {NEGLIGIBLE:g} IoU"
    agrees = (row.difference > 0) == (row.relation == ">")
    return ("supported" if agrees else "contradicted"), ""


def _high_objects(table: pd.DataFrame, models: Mapping[str, str]) -> list[tuple[dict, pd.DataFrame]]:
    """Return, for every object, patients' IoU under a design chosen on other patients, against the bar."""
    rows = deep_rows(table, models)
    rows = rows[rows["prompt"].isin(["one_box", "mask"])]
    found = []
    for (data_set, name), group in rows.groupby(["data_set", "object"], dropna=False):
        best, tested = chosen_and_tested(designs_of_patients(group))
        values = tested[best].to_numpy(float) if best else np.empty(0)
        pairs = pd.DataFrame({"data_set": data_set, "a": values, "b": HIGH_IOU})
        said = f", {' / '.join(best)}" if best else ""
        found.append(({"test": f"{data_set}: {name}{said}, against {HIGH_IOU}", "scale": "IoU"}, pairs))
    return found


def _of_patients(values: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return pairs of cases as pairs of patients."""
    if "patient_id" in values or "case_id" not in values or values.empty:
        return values
    who = table[["data_set", "case_id", "patient_id"]].drop_duplicates()
    joined = values.merge(who, on=["data_set", "case_id"], how="left")
    return joined.groupby(["data_set", "patient_id"])[["a", "b"]].mean().reset_index()


TEST_OF = {"=": "equivalence", ">=": "not_worse"}  # other relations are tested for a difference
FIRST = ["claim", "sentence", "source", "relation", "test", "scale"]
LAST = [
    "p",
    "p_holm",
    "holm_low",
    "holm_high",
    "family",
    "n_tests",
    "finding",
    "verdict",
    "because",
    "method",
]


def scoreboard(table: pd.DataFrame, sam2: str = "", sam: str = "", margin: float = 0.05) -> pd.DataFrame:
    """Return what the table says of every claim.

    Parameters
    ----------
    table : DataFrame
        The tidy table.
    sam2, sam : str
        Models that play the two parts; may be left out where the table has one of each.
    margin : float
        Of "about as good" (H1), "at least as good" (H3, H4) and "much worse" (H9), IoU.

    Returns
    -------
    DataFrame
        One row per test: the claim (`claim`, `sentence`, `source`, `relation`, `needs`), the test, its
        `scale` ("IoU" or "rank correlation"), effects and interval as in `paired.compare`, `finding`
        (of the test), `verdict` (of the claim), `generalises_to` (what it speaks of) and `because` (which of
        its tests say what, and what is needed for those that cannot be made). The patient is the unit. For
        H13 a single object above the bar is enough.
    """
    checked = check_table(table)
    models = model_parts(checked, sam2, sam)
    rows, values = [], []

    def add(head: dict, pairs: pd.DataFrame, declared: Comparison, shift: float = 0.0) -> None:
        pairs = _of_patients(pairs, checked)
        if not len(pairs):
            pairs = pd.DataFrame({"data_set": [], "a": np.empty(0), "b": np.empty(0)})
        item = compare_pairs(pairs.assign(a=pairs["a"] + shift), declared) if shift else None
        found = compare_pairs(pairs, declared)
        if item:  # tested against -margin; the effect is shown against 0
            found |= {"p": item["p"], "method": f"{item['method']} against -{shift:g}"}
        rows.append(head | {"margin": margin, "kind": declared.test} | found)
        values.append(pairs)

    for claim in (*CLAIMS, H13):
        head = {"claim": claim.number, "sentence": claim.sentence, "source": claim.source}
        head |= {"relation": claim.relation, "needs": claim.needs, "mirror_of": claim.mirror_of}
        if claim is H13:
            declared = Comparison("claim", {}, {}, alternative="greater")
            for more, pairs in _high_objects(checked, models):
                add(head | more, pairs, declared)
            if not len(rows) or rows[-1]["claim"] != claim.number:
                add(head | {"test": f"objects above {HIGH_IOU}", "scale": "IoU"}, pd.DataFrame(), declared)
            continue
        much = claim.relation == "<<"
        test, alternative = TEST_OF.get(claim.relation, "difference"), "less" if much else "two-sided"
        declared = Comparison("claim", {}, {}, test=test, margin=margin, alternative=alternative)
        for name, pairs in claim.tests:
            scale = "rank correlation" if "rank correlation" in name else "IoU"
            add(
                head | {"test": name, "scale": scale},
                pairs(checked, models),
                declared,
                margin if much else 0.0,
            )
    board = _corrected(pd.DataFrame(rows), values)
    board = pd.concat([board, *_mirrored(board)], ignore_index=True)
    board["number"] = board["claim"].map({c.number: i for i, c in enumerate((*CLAIMS, H13))})
    board = board.sort_values("number", kind="stable", ignore_index=True)
    said = [_finding(row) for row in board.itertuples()]
    board["finding"] = [finding for finding, _ in said]
    board["note"] = [
        "; ".join(filter(None, [row.note, why]))
        for row, (_, why) in zip(board.itertuples(), said, strict=True)
    ]
    verdicts = {
        number: _verdict(tests, number == "H13") for number, tests in board.groupby("claim", sort=False)
    }
    board["verdict"] = board["claim"].map(verdicts)
    reasons = {claim: _because(tests) for claim, tests in board.groupby("claim", sort=False)}
    board["because"] = board["claim"].map(reasons)
    return board[[*FIRST, *EFFECTS, *LAST, "needs", "note"]]


def _corrected(board: pd.DataFrame, values: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the board with p values and intervals corrected within its two families."""
    board = board.assign(family=np.where(board["claim"] == H13.number, "objects", "claims"))
    parts = [
        with_holm(rows.assign(test=rows["kind"], name=rows["test"]), [values[place] for place in rows.index])
        for _, rows in board.groupby("family")
    ]
    whole = pd.concat(parts).sort_index()
    return whole.assign(test=whole["name"]).drop(columns="name")


def _mirrored(board: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the rows of claims whose test another claim has made in the other direction."""
    turned = []
    for claim in CLAIMS:
        rows = board[board["claim"] == claim.mirror_of]
        if rows.empty:
            continue
        new = rows.assign(claim=claim.number, sentence=claim.sentence, source=claim.source, needs=claim.needs)
        for low, high in (("ci_low", "ci_high"), ("holm_low", "holm_high")):
            new[[low, high]] = -rows[[high, low]].to_numpy(float)
        for one, other in (("mean_a", "mean_b"), ("sets_above", "sets_below")):
            new[[one, other]] = rows[[other, one]].to_numpy()
        for column in ("difference", "rank_biserial", "mean_difference", "case_weighted"):
            new[column] = -rows[column].astype(float)
        new["superiority"] = 1 - rows["superiority"].astype(float)
        new["test"] = [f"the other way round: {name}" for name in rows["test"]]
        turned.append(new)
    return turned


def _verdict(tests: pd.DataFrame, any_is_enough: bool = False) -> str:
    """Return the verdict of a claim from the findings of its tests.

    "within these data sets" where a test that decides it had too few data sets to speak of others.
    """
    findings = tests["finding"].tolist()
    testable = tests[tests["finding"] != "not testable"]
    if testable.empty:
        return "not testable"

    def within(word: str) -> str:
        deciding = testable[testable["finding"] == word]
        few = deciding["generalises_to"].eq(THESE)
        limited = few.all() if any_is_enough or word == "contradicted" else few.any()
        return f"{word} {WITHIN}" if limited else word

    if any_is_enough:
        # that none was shown to pass the bar does not show that none does
        return within("supported") if "supported" in findings else "inconclusive"
    if "contradicted" in findings:
        return within("contradicted")
    if (testable["finding"] == WEIGHTLESS).any():
        return WEIGHTLESS
    if (testable["finding"] != "supported").any():
        return "inconclusive"
    whole = within("supported")
    return whole if len(testable) == len(findings) else whole.replace("supported", "supported in part")


def _because(tests: pd.DataFrame) -> str:
    """Return in a sentence which tests of one claim say what, and what the missing ones need."""
    found = tests["finding"].value_counts()
    parts = [f"{found[name]} of {len(tests)} tests {name}" for name in FINDINGS if name in found]
    missing = tests[tests["finding"] == "not testable"]
    if len(missing) and len(missing) < len(tests):
        parts.append("not testable: " + ", ".join(missing["test"]))
    if len(missing):
        parts.append(f"needs {tests['needs'].iloc[0]}")
    return "; ".join(parts)


def published_scoreboard() -> pd.DataFrame:
    """Return the claims that SAM's published results can test: H2 and H3, the object as unit."""
    table = sam_table().assign(case_id=lambda t: t["data_set"] + ": " + t["object"])
    board = scoreboard(table.astype({"case_id": "string"}), sam=PUBLISHED_MODEL)
    board = board[board["claim"].isin(["H2", "H3"]) & (board["n"] > 0)]
    return board.assign(note="published means per object, which stand for patients here")
