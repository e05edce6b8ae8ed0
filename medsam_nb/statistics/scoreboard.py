"""The scoreboard: what a table says of every claim of the study.

All tests of a scoreboard are one Holm family, but for those of H13, which asks of every object and
would make the others' threshold depend on the number of objects: they are a family of their own
(`FAMILIES` says so, and that it was not decided beforehand). A claim is supported where all its
tests agree with it after correction, supported in part where some of its tests cannot be made with
this table or show a difference of no practical weight and all others agree, contradicted where one of them
shows the opposite, and inconclusive otherwise. With fewer than six data sets a verdict says that it holds in
these data sets. What the table cannot test is said, with what it would take.
"""

from collections.abc import Mapping

import pandas as pd

from medsam_nb.statistics import twins
from medsam_nb.statistics.claim_values import design_table
from medsam_nb.statistics.claims import CLAIMS, H10, H13, HIGH_IOU, MARGIN, MUCH, Claim
from medsam_nb.statistics.declarations import Comparison
from medsam_nb.statistics.findings import OPEN, OPPOSED, SHOWN, TINY, outcome, spoken
from medsam_nb.statistics.inference import GENERAL
from medsam_nb.statistics.paired import Interval, assess, corrected, joined
from medsam_nb.statistics.pooling import check_table, unit_noun
from medsam_nb.statistics.published import MODEL as PUBLISHED_MODEL
from medsam_nb.statistics.published import sam_table
from medsam_nb.statistics.selection import DRAWS, Selected, best_above, best_against_mean

VERDICTS = ("supported", "supported in part", "contradicted", TINY, OPEN, "not testable")
WORDS = {SHOWN: "supported", OPPOSED: "contradicted"}
FAMILIES = (
    "The tests of the claims are one Holm family; a test that two claims read in opposite ways (H5b and H5c) "
    "is counted once. The objects of H13 are another family, so that how many objects a study has does not "
    "move the threshold of the other claims; this was not decided beforehand but after a first look at the "
    "demonstration's table with an untrained model, where it moved several verdicts across 0.05, and has "
    "been fixed since. A test that the study declares as a comparison counts in that comparison's family "
    "only, with the same corrected p and interval in both tables."
)
BRIEF_COLUMNS = [
    *("claim", "test", "n", "generalises_to", "difference", "holm_low", "holm_high", "p_holm", "finding"),
    "note",
]
BOARD_COLUMNS = [
    *("claim", "sentence", "source", "relation", "test", "scale", "unit"),
    *("n", "n_cases", "n_data_sets", "n_units", "n_zero", "mean_a", "mean_b", "difference"),
    *("ci_low", "ci_high", "ci_level", "holm_low", "holm_high", "holm_level"),
    *("case_weighted", "median_difference", "rank_biserial", "superiority"),
    *("largest_share", "sets_above", "sets_below"),
    *("p", "p_holm", "p_signed_rank", "family", "n_tests", "finding", "verdict", "because", "generalises_to"),
    *("method", "needs", "note"),
]
Test = tuple[dict, Interval | None]  # a row of the board and what gives its intervals


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


def _selected(
    values: pd.DataFrame, noun: str, selected: Selected, interval: Interval, method: str, note: str
) -> Test:
    """Return the row of a test whose p and interval take the choice of a design into account."""
    row, _ = assess(values, Comparison("claim", {}, {}), noun)
    low, high = interval(row["ci_level"])
    # cases that choose for one another are not independent: no test of ranks
    row |= {"p": selected.p, "ci_low": low, "ci_high": high, "p_signed_rank": float("nan")}
    return row | {"method": method, "note": joined(row["note"], note)}, interval


def _incomplete(designs: pd.DataFrame, noun: str) -> str:
    missing = designs.attrs["incomplete"]
    return (
        f"{missing} {noun}{'s' * (missing != 1)} without a design that others have left out"
        if missing
        else ""
    )


def _best_design(
    table: pd.DataFrame, models: Mapping[str, str], noun: str, draws: int, seed: int
) -> list[Test]:
    """Test the best design, which other rows choose, against the mean over all designs (H10)."""
    name = {"test": "the best on the others against the mean of designs", "scale": "IoU"}
    designs = design_table(table, models)
    if len(designs) < 2 or designs.shape[1] < 2:
        return [(name | {"n": 0}, None)]
    sets = designs.index.get_level_values("data_set").to_numpy(str)
    selected, best = best_against_mean(designs.to_numpy(float), sets, draws, seed)
    pairs = pd.DataFrame({"data_set": sets, "a": best, "b": designs.mean(axis=1).to_numpy()})
    method = f"permutation of {designs.shape[1]} designs within {{}}, {len(selected.draws)} draws, two-sided"
    row, interval = _selected(pairs, noun, selected, selected.interval, method, _incomplete(designs, noun))
    row["method"] = row["method"].format("data sets" if row["generalises_to"] == GENERAL else f"{noun}s")
    return [(name | row | {"n_cases": designs.attrs["n_cases"]}, interval)]


def _high_objects(
    table: pd.DataFrame, models: Mapping[str, str], noun: str, draws: int, seed: int
) -> list[Test]:
    """Test, for every object, whether the best design with a box or mask has a mean above the bar (H13)."""
    rows = table[(table["task"] == "3d") & table["prompt"].isin(["one_box", "mask"])]
    rows = rows[rows["model"] == models.get("sam2", "")]
    found = []
    for (data_set, thing), group in rows.groupby(["data_set", "object"], dropna=False):
        designs = design_table(group, models)
        if designs.empty:
            continue
        selected, place = best_above(designs.to_numpy(float), HIGH_IOU, draws, seed)
        pairs = pd.DataFrame({"data_set": data_set, "a": designs.iloc[:, place].to_numpy(), "b": HIGH_IOU})
        method = f"changes of sign, the best of {designs.shape[1]} designs, two-sided"
        row, interval = _selected(
            pairs, noun, selected, selected.interval, method, _incomplete(designs, noun)
        )
        name = f"{data_set}: {thing}, {'/'.join(designs.columns[place])}, against {HIGH_IOU}"
        scale = {"test": name, "scale": "IoU", "n_cases": designs.attrs["n_cases"]}
        # one patient has neither test nor interval
        found.append((row | scale | ({"p": float("nan")} if len(designs) < 2 else {}), interval))
    return found or [({"test": f"objects above {HIGH_IOU}", "n": 0}, None)]


def _declared(
    claim: Claim, table: pd.DataFrame, models: Mapping[str, str], noun: str, margin: float, much: float
) -> list[Test]:
    """Make the tests of a claim that compares two given sides."""
    kind = {"=": "equivalence", ">=": "not_worse"}.get(claim.relation, "difference")
    declared = Comparison("claim", {}, {}, test=kind, margin=margin)
    found = []
    for name, pairs in claim.tests:
        head = {"test": name, "scale": "rank correlation" if "rank correlation" in name else "IoU"}
        values = pairs(table, models)
        if values.empty:
            found.append((head | {"n": 0}, None))
            continue
        row, interval = assess(values, declared, noun, -much if claim.relation == "<<" else 0.0)
        found.append((head | row, interval))
    return found


def scoreboard(
    table: pd.DataFrame,
    sam2: str = "",
    sam: str = "",
    margin: float = MARGIN,
    much: float = MUCH,
    draws: int = DRAWS,
    seed: int = 0,
    declared: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return what the table says of every claim.

    Parameters
    ----------
    table : DataFrame
        The tidy table.
    sam2, sam : str
        Models that play the two parts; may be left out where the table has one of each.
    margin : float
        Of "about as well" (H1) and "not worse" (H3, H4), IoU.
    much : float
        Of "much worse" (H9), IoU.
    draws, seed : int
        Of the permutations of H10, and of the changes of sign of H13 where not all are made.
    declared : DataFrame, optional
        The study's comparisons on the same table (`paired.compare`). A claim's test that is one of them
        keeps its corrected p and interval, and counts in its family (`twins`).

    Returns
    -------
    DataFrame
        One row per test: the claim (`claim`, `sentence`, `source`, `relation`, `needs`), the test, its
        `scale` ("IoU" or "rank correlation"), effects, intervals and p as in `paired.compare`, `finding`
        (of the test), `verdict` (of the claim, with whom it speaks of unless that is data sets like these),
        `generalises_to` (of the test) and `because` (which of its tests say what, and what is needed for
        those that cannot be made). For H13 a single object above the bar is enough.
    """
    checked = check_table(table)
    models, noun = model_parts(checked, sam2, sam), unit_noun(checked)
    rows, intervals = [], []
    for claim in sorted((*CLAIMS, H10, H13), key=lambda claim: int(claim.number[1:].rstrip("abcd"))):
        said = claim.said(margin, much)
        head = {"claim": said.number, "sentence": said.sentence, "source": said.source}
        head |= {"relation": said.relation, "needs": said.needs, "mirrors": said.mirrors}
        head |= {"family": "objects" if claim is H13 else "claims", "unit": noun, "note": ""}
        if claim is H10:
            tests = _best_design(checked, models, noun, draws, seed)
        elif claim is H13:
            tests = _high_objects(checked, models, noun, draws, seed)
        else:
            tests = _declared(claim, checked, models, noun, margin, much)
        rows += [head | row for row, _ in tests]
        intervals += [interval for _, interval in tests]
    frame = pd.DataFrame(rows).reindex(columns=[*BOARD_COLUMNS, "mirrors"])
    frame = frame.drop(columns=["p_holm", "n_tests", "holm_low", "holm_high", "holm_level"])
    mirrors = frame["mirrors"] != ""
    same = {} if declared is None else twins.find(frame, declared)
    elsewhere = frame.index.isin(list(same))
    board = corrected(frame.to_dict("records"), intervals, ~mirrors & ~elsewhere)
    if same:
        twins.take(board, declared, same)
    _read_mirrors(board, intervals)
    board["note"] = board["note"].fillna("").astype(str)
    board["finding"] = ""
    for place, row in board.iterrows():
        if not row["n"]:
            board.loc[place, "finding"] = "not testable"
            continue
        bound = {"<<": much}.get(row["relation"], margin)
        what, why = outcome(row["relation"], row, bound, row["scale"] == "IoU" and row["claim"] != "H13")
        board.loc[place, "finding"] = WORDS.get(what, what)
        board.loc[place, "note"] = joined(row["note"], why)
    verdicts = {
        claim: _verdict(tests, any_is_enough=claim == "H13") for claim, tests in board.groupby("claim")
    }
    reasons = {claim: _because(tests) for claim, tests in board.groupby("claim", sort=False)}
    board["verdict"], board["because"] = board["claim"].map(verdicts), board["claim"].map(reasons)
    counts = ["n", "n_cases", "n_data_sets", "n_units", "n_zero", "sets_above", "sets_below"]
    texts = {"generalises_to": "", "method": "none"}
    board = board[BOARD_COLUMNS].astype(dict.fromkeys(counts, "Int64") | dict.fromkeys(texts, object))
    return board.fillna(texts)


def _read_mirrors(board: pd.DataFrame, intervals: list[Interval | None]) -> None:
    """Give a test that another claim reads the other way round the correction of the one that was counted."""
    for place, row in board[board["mirrors"] != ""].iterrows():
        twin = board[board["claim"] == row["mirrors"]].iloc[0]
        for column in ("p_holm", "holm_level", "n_tests"):
            board.loc[place, column] = twin[column]
        board.loc[place, ["holm_low", "holm_high"]] = [-twin["holm_high"], -twin["holm_low"]]


def _verdict(tests: pd.DataFrame, any_is_enough: bool = False) -> str:
    """Return the verdict of a claim from the findings of its tests, and of whom it speaks."""
    findings = tests["finding"].tolist()
    testable = [finding for finding in findings if finding != "not testable"]
    if not testable:
        return "not testable"
    if any_is_enough:
        # that none was shown to pass the bar does not show that none does
        return spoken("supported" if "supported" in testable else OPEN, "these data sets")
    if "contradicted" in testable:
        verdict = "contradicted"
    elif OPEN in testable:
        verdict = OPEN
    elif set(testable) == {TINY}:
        verdict = TINY
    else:
        verdict = (
            "supported"
            if len(testable) == findings.count("supported") == len(findings)
            else "supported in part"
        )
    decisive = tests[tests["finding"] == "contradicted"] if verdict == "contradicted" else tests
    spoken_of = set(decisive.loc[decisive["finding"] != "not testable", "generalises_to"])
    return spoken(verdict, min(spoken_of, key=lambda words: (words == GENERAL, "data sets" in words)))


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


def published_scoreboard() -> pd.DataFrame:
    """Return the claims that SAM's published results can test: H2 and H3, on means of data sets."""
    table = sam_table().assign(case_id=lambda t: t["data_set"] + ": " + t["object"])
    board = scoreboard(table.astype({"case_id": "string"}), sam=PUBLISHED_MODEL)
    board = board[board["claim"].isin(["H2", "H3"]) & (board["n"] > 0)]
    note = "published means of objects, each as a case of its own"
    return board.assign(unit="object", note=[joined(text, note) for text in board["note"]])
