"""Boards: what was compared and claimed, a line each, with the interval as a small drawing."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np
import pandas as pd
from markupsafe import Markup

from medsam_nb.figures.claims import FINDING_COLOURS
from medsam_nb.figures.style import GREY
from medsam_nb.figures.words import counted, interval_text, label, p_text
from medsam_nb.statistics.findings import NEGLIGIBLE, OPEN, TINY
from medsam_nb.statistics.inference import ALPHA

WIDTH, LINE = 140, 12  # of a drawing and of one interval in it, CSS pixels


@dataclass(frozen=True)
class Effect:
    """A mean difference with the interval that goes with its corrected p, and its finding."""

    difference: float
    low: float
    high: float
    finding: str
    name: str = ""

    @property
    def colour(self) -> str:
        """The colour of its finding, as in the figure of the claims."""
        plain = self.finding.split(" within")[0]
        if plain in FINDING_COLOURS:
            return FINDING_COLOURS[plain]
        return GREY if plain == "not testable" else FINDING_COLOURS["supported"]


@dataclass(frozen=True)
class Row:
    """One line of a board: what it is about, its effects, and what is printed beside them."""

    name: str
    effects: tuple[Effect, ...]
    estimate: str
    p: str
    n: str
    finding: str
    drawing: Markup = Markup("")
    why: str = ""


@dataclass(frozen=True)
class Board:
    """A heading, its lines, and a remark below them."""

    heading: str
    rows: list[Row]
    remark: str = ""

    @property
    def tested(self) -> bool:
        """Whether any line has a finding; with too few units none has."""
        return any(row.finding for row in self.rows)

    @property
    def numbered(self) -> bool:
        """Whether the lines differ in how many units stand behind them."""
        return any(row.n for row in self.rows)


def drawing(effects: Sequence[Effect], limit: float) -> Markup:
    """Return the effects as a drawing in SVG, one below the other on an axis from -limit to limit."""
    height = LINE * max(len(effects), 1)

    def x(value: float) -> float:
        return round((np.clip(value, -limit, limit) / limit + 1) / 2 * (WIDTH - 12) + 6, 1)

    parts = [f'<line x1="{x(0)}" x2="{x(0)}" y1="0" y2="{height}" stroke="#444" stroke-width="1"/>']
    for place, effect in enumerate(effects):
        y = LINE * place + LINE / 2
        low = effect.low if np.isfinite(effect.low) else -limit
        high = effect.high if np.isfinite(effect.high) else limit
        if np.isfinite([effect.low, effect.high]).any():
            ends = f'x1="{x(low)}" x2="{x(high)}" y1="{y}" y2="{y}"'
            parts.append(f'<line {ends} stroke="{effect.colour}" stroke-width="2.5"/>')
        parts.append(f'<circle cx="{x(effect.difference)}" cy="{y}" r="3" fill="{effect.colour}"/>')
    said = "; ".join(
        f"{effect.name} {interval_text(effect.difference, effect.low, effect.high)}".strip()
        for effect in effects
    )
    return Markup(
        f'<svg role="img" aria-label="{escape(said)}" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}">{"".join(parts)}</svg>'
    )


def _limit(effects: Sequence[Effect]) -> float:
    values = np.array([[e.low, e.high, e.difference] for e in effects], float)
    finite = np.abs(values[np.isfinite(values)])
    return float(max(finite.max(initial=0) * 1.05, 0.1))


def _effect(row: pd.Series, name: str = "") -> Effect:
    found = [float(row[key]) for key in ("difference", "holm_low", "holm_high")]
    return Effect(*found, finding=str(row["finding"]), name=name)


def _units(row: pd.Series) -> str:
    return f"{counted(int(row['n']), str(row['unit']))} of {counted(int(row['n_data_sets']), 'data set')}"


def _units_of_all(tests: pd.DataFrame) -> str:
    """Return how many units stand behind the tests of one claim, which may differ."""
    if tests.empty:
        return ""
    numbers, units = tests["n"].astype(int), set(tests["unit"])
    if len(units) == 1 and numbers.nunique() > 1:
        return f"{numbers.min()} to {numbers.max()} {units.pop()}s in each of {len(tests)} tests"
    return _units(tests.loc[numbers.idxmax()])


def _conclusive(result: pd.DataFrame) -> pd.Series:
    """Return which comparisons have units enough for an interval at the level of their correction."""
    return np.isfinite(result[["holm_low", "holm_high"]].astype(float)).any(axis=1)


def comparisons_board(result: pd.DataFrame, heading: str, favours: str = "the first side") -> Board:
    """Return the board of declared comparisons (`paired.compare`), those that could be tested first.

    Where nothing could be tested for want of units, differences stand without interval and p.
    """
    tested = result[result["n"] > 0]
    if tested.empty:
        return Board(heading, [], "There was nothing to compare.")
    effects = [_effect(row) for _, row in tested.iterrows()]
    limit, rows, some = _limit(effects), [], _conclusive(tested).any()
    for effect, clear, (_, row) in zip(effects, _conclusive(tested), tested.iterrows(), strict=True):
        name = label(row["comparison"]) + (f" ({label(row['level'])})" if row["level"] else "")
        rows.append(
            Row(
                name,
                (effect,),
                interval_text(effect.difference, effect.low, effect.high),
                p_text(float(row["p_holm"])) if clear else "-",
                _units(row),
                _words(row) if some else "",
                drawing([effect], limit),
                str(row.get("note", "")),
            )
        )
    left = len(result) - len(tested)
    remark = f"{counted(left, 'comparison')} had nothing to compare." if left else ""
    if len(tested) and not _conclusive(tested).any():
        remark = f"{remark} There are too few units for any test: the differences are those of these data."
    return _without_repeats(Board(heading, rows, f"{remark} {_how_drawn(limit, favours)}".strip()))


def _how_drawn(limit: float, favours: str = "the first side") -> str:
    return (
        f"A positive difference favours {favours}; drawn from {-limit:.2f} to {limit:.2f}. A difference is "
        f"found with a corrected p below {ALPHA:g} and a mean of {NEGLIGIBLE:g} or more; where not, the mark "
        "opens why."
    )


def _without_repeats(board: Board) -> Board:
    """Say below a board how many units stand behind it, if every line has the same."""
    numbers = {row.n for row in board.rows}
    if len(numbers) != 1:
        return board
    rows = [replace(row, n="") for row in board.rows]
    return replace(board, rows=rows, remark=f"{board.remark} Every line is over {numbers.pop()}.".strip())


def _sides(name: str) -> tuple[str, str]:
    """Return the two sides of a comparison as they are printed; two empty ones where its name says none.

    Examples
    --------
    >>> _sides("box against point, 3D"), _sides("SAM 2 against SAM (miniature_sam2, miniature_sam)")
    (('box', 'point'), ('miniature SAM 2', 'miniature SAM'))
    """
    first, against, second = name.partition(" against ")
    if not against:
        return "", ""
    models = re.search(r"\((\S+), (\S+)\)$", second)
    pair = models.groups() if models else (first, re.split(r", | \(", second)[0])
    return label(pair[0]), label(pair[1])


def _words(row: pd.Series) -> str:
    """Return a comparison's finding with the names of its sides in place of a and b."""
    finding, sides = str(row["finding"]), _sides(str(row["comparison"]))
    if all(sides) and finding in ("a is higher", "b is higher"):
        return f"{sides[finding[0] == 'b']} is higher"
    return finding


def claims_board(board: pd.DataFrame) -> Board:
    """Return the board of the paper's claims (`scoreboard`): a line per claim with all its tests."""
    made = board[board["n"] > 0]
    if not _conclusive(made).any():
        claims = counted(board["claim"].nunique(), "claim")
        units = f" {_units(made.loc[made['n'].astype(int).idxmax()])}" if len(made) else "out a case"
        remark = f"With{units} none of {claims} can be decided; the estimates stand in the tables below."
        return Board("The paper's claims on this table", [], remark)
    effects = {place: _effect(row, label(row["test"])) for place, row in board.iterrows() if row["n"] > 0}
    limit, rows = _limit(list(effects.values())), []
    for claim, tests in board.groupby("claim", sort=False):
        mine = [effects[place] for place in tests.index if place in effects]
        first = tests.iloc[0]
        one = len(mine) == 1
        made = tests[tests["n"] > 0]
        rows.append(
            Row(
                f"{claim}: {first['sentence']}",
                tuple(mine),
                interval_text(mine[0].difference, mine[0].low, mine[0].high)
                if one
                else (f"{len(mine)} tests" if mine else ""),
                p_text(float(made["p_holm"].iloc[0])) if one else "",
                _units_of_all(made),
                str(first["verdict"]),
                drawing(mine, limit) if mine else Markup(""),
                str(first["because"]),
            )
        )
    return _without_repeats(Board("The paper's claims on this table", rows, _how_drawn(limit)))


FAMILIES = {"2D": "On slices (2D)", "3D": "In volumes (3D)"}


def family_words(family: object) -> str:
    """Return the name of a family of comparisons as a heading."""
    return FAMILIES.get(str(family), label(family).capitalize())


def sentences(result: pd.DataFrame) -> list[str]:
    """Return what declared comparisons found, a sentence per family: effects, intervals, what is open."""
    said = []
    for family, rows in result[_conclusive(result)].groupby("family", sort=False):
        found, open_, tiny = [], [], []
        for name, group in rows.groupby("comparison", sort=False):
            clear = group[~group["finding"].isin([OPEN, TINY])]
            if len(clear):
                found.append(f"{_plain(name)}: {' and '.join(map(_amount, clear.to_dict('records')))}")
            for what, said_of in ((OPEN, open_), (TINY, tiny)):
                which = group[group["finding"] == what]["level"]
                some = len(which) < len(group) and all(which)
                if len(which):
                    said_of.append(
                        _plain(name) + (f" with {' and '.join(map(label, which))}" if some else "")
                    )
        text = f"{family_words(family)}, change of the IoU: {'; '.join(found)}." if found else ""
        text += f" Not decided: {'; '.join(open_)}." if open_ else ""
        text += f" Certain, but too small to matter: {'; '.join(tiny)}." if tiny else ""
        said.append(text.strip())
    return said


def _plain(name: str) -> str:
    """Return a comparison's name as it is said, without its task, and with the models that it compares.

    Examples
    --------
    >>> _plain("box against point, 3D"), _plain("SAM 2 against SAM (miniature_sam2, miniature_sam)")
    ('box instead of point', 'miniature SAM 2 instead of miniature SAM')
    >>> _plain("SAM 2 equals SAM within 0.05 (miniature_sam2, miniature_sam)")
    'miniature SAM 2 equals miniature SAM within 0.05'
    """
    models = re.search(r" \((\S+), (\S+)\)$", name)
    short = re.sub(r" \([^)]*\)$|, 3D$", "", name)
    if models and (said := re.fullmatch(r"SAM 2 (against|equals) SAM(.*)", short)):
        short = f"{models[1]} {said[1]} {models[2]}{said[2]}"
    return label(short).replace(" against ", " instead of ", 1)


def _signed(value: float) -> str:
    """Return a difference with two decimals, three where it would be printed as none.

    Examples
    --------
    >>> _signed(0.134), _signed(-0.004), _signed(0.0)
    ('+0.13', '-0.004', '+0.000')
    """
    return f"{value:+.2f}" if abs(value) >= 0.005 else f"{value:+.3f}"


def _amount(row: Mapping) -> str:
    known = np.isfinite([row["holm_low"], row["holm_high"]]).all()
    text = _signed(row["difference"])
    text += f" ({_signed(row['holm_low'])} to {_signed(row['holm_high'])})" if known else ""
    return text + (f" with {label(row['level'])}" if row["level"] else "")
