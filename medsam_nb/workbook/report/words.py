"""Words of the page: what a term means, stood once at its end and linked from where it is used."""

import re
from html import escape

import pandas as pd
from markupsafe import Markup

from medsam_nb.figures.words import label

GLOSSARY = {
    "IoU": "Intersection over union of a predicted and a true mask: 0 without overlap, 1 if they are equal.",
    "Dice": "Twice the intersection over the sum of both masks; 2 IoU / (1 + IoU) of the same masks.",
    "case": "One image (a picture or a volume) with its masks. A patient may have several.",
    "interval": "A range of values that the data do not reject, at 95 % unless said otherwise.",
    "corrected interval": "The interval that belongs to the corrected p: wider, as several tests were made.",
    "corrected p": "A p value after Holm's correction for the number of tests in its family.",
    "inconclusive": "Neither what is asked nor its opposite is shown; the table's notes say why.",
    "of no practical weight": "A certain difference whose whole corrected interval is smaller than 0.01 IoU.",
    "within these data sets": "Too few data sets to speak of others: what is found holds for these.",
    "component": "A connected part of an object on a slice; a pair of organs has two.",
    "one point": "A point at the deepest place of the object's largest component.",
    "point per component": "A point in each of the object's up to three largest components.",
    "one box": "The tight box around the object's largest component.",
    "box per component": "A tight box around each of the object's up to three largest components.",
    "mask": "As a prompt in a volume: the true mask of the prompted slice.",
    "first mask": "The first of the three masks that the model offers.",
    "most confident mask": "Of the three masks the one that the model itself rates highest.",
    "oracle mask": "Of the three masks the one nearest to the truth, which no user knows: an upper bound.",
    "bidirectional": "The object is carried from the prompted slice to both ends of the volume.",
    "front to end": "The object is carried from the first slice of the volume to the last.",
    "first slice": "The first slice that holds the object is prompted.",
    "centre slice": "The middle one of the object's slices is prompted.",
    "largest slice": "The slice on which the object is largest is prompted.",
    "three slices": "Three slices are prompted: at a quarter, half and three quarters of the object.",
    "correction": "A further prompt where the mask is most wrong, told by the truth.",
    "running predictor": "Corrected volumes: the predictor keeps its memory while prompts are added.",
    "fresh start": "Corrected volumes: after each prompt the predictor begins anew with all of them.",
    "unit of work": "One case with one model in one task, computed at one time.",
    "design": "A choice of slice, prompt, direction and mask in a volume.",
    "miniature": "A small network that this project trained on simulated images; it is not Meta's model.",
}  # fmt: skip
# Words too common to be linked wherever they stand.
SILENT = {"case", "mask", "interval", "design", "component", "correction"}
_TERMS = re.compile(
    r"\b("
    + "|".join(sorted((term for term in GLOSSARY if term not in SILENT), key=len, reverse=True))
    + r")\b"
)
# Headings of columns as a person reads them; others lose their underscores.
COLUMNS = {
    "n": "n",
    "n_cases": "cases",
    "n_patients": "patients",
    "n_data_sets": "data sets",
    "n_units": "units of inference",
    "n_tests": "tests in the family",
    "ci_low": "interval from",
    "ci_high": "to",
    "ci_level": "level of the interval",
    "holm_low": "corrected interval from",
    "holm_high": "to (corrected)",
    "holm_level": "level (corrected)",
    "p_holm": "corrected p",
    "p_signed_rank": "p of ranks",
    "case_weighted": "all cases alike",
    "generalises_to": "holds for",
    "iou": "IoU",
    "case_id": "case",
    "noc": "clicks (NoC)",
    "spacing_mm": "spacing, mm",
}


def column_words(name: object) -> str:
    """Return the heading of a column as a person reads it.

    Examples
    --------
    >>> column_words("n_data_sets"), column_words("holm_low"), column_words("mean_a")
    ('data sets', 'corrected interval from', 'mean a')
    """
    return COLUMNS.get(str(name), label(name))


def anchor(term: str) -> str:
    """Return the address of a term on the page."""
    return f"word-{term.lower().replace(' ', '-')}"


class Terms:
    """The terms of one page: a section links each once, and the page knows where it is first used."""

    def __init__(self) -> None:
        self.used: set[str] = set()
        self._of_section: set[str] = set()

    def begin_section(self) -> str:
        """Link every term once more from here on; return "", so that a template can say it."""
        self._of_section.clear()
        return ""

    def linked(self, text: object) -> Markup:
        """Return text as HTML in which terms that the section did not have lead to their meanings."""

        def link(found: re.Match) -> str:
            term = found[1]
            if term in self._of_section:
                return term
            first = "" if term in self.used else f' id="{anchor(term)}-use"'
            self._of_section.add(term)
            self.used.add(term)
            meaning = escape(GLOSSARY[term])
            return f'<a class="word"{first} href="#{anchor(term)}" title="{meaning}">{term}</a>'

        return Markup(_TERMS.sub(link, escape("" if _missing(text) else str(text))))


def _missing(value: object) -> bool:
    return pd.api.types.is_scalar(value) and pd.isna(value)
