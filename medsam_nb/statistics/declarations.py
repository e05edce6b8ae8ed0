"""A comparison, declared before it is run: two sides of a table, and what is asked of their difference."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from medsam_nb.errors import StudyError, require_known
from medsam_nb.protocol.table import COLUMNS
from medsam_nb.statistics.signs import ALTERNATIVES

UNITS = {"patient": ["data_set", "patient_id"], "object": ["data_set", "object"]}
TESTS = ("difference", "equivalence", "not_worse")
SLICES = ("all", "propagated", "prompted")


@dataclass(frozen=True)
class Comparison:
    """Two sides of a table, and what is asked of their difference.

    Attributes
    ----------
    name : str
    a, b : mapping of column to value or list of values
        The rows of either side. What they name is what differs; all else is matched.
    where : mapping
        Rows of both sides.
    family : str
        Comparisons of one family are corrected together.
    metric : str
        As the table names it, or "dice" of slices (`pooling.of_metric`).
    unit : {"patient", "object"}
        What has one pair of values within a data set; see `inference` for the unit of the test.
    test : {"difference", "equivalence", "not_worse"}
        Is the mean difference 0; does it lie within +-margin; is it above -margin.
    alternative : {"two-sided", "greater", "less"}
        Of a against b; for "difference" only.
    margin : float
        In units of the metric.
    slices : {"all", "propagated", "prompted"}
        For rows of a slice: all, only those without, or only those with a prompt (3D).
    each : str
        A column: one comparison is made for each of its values. Empty for none.
    """

    name: str
    a: Mapping
    b: Mapping
    where: Mapping = field(default_factory=dict)
    family: str = "all"
    metric: str = "iou"
    unit: str = "patient"
    test: str = "difference"
    alternative: str = "two-sided"
    margin: float = 0.05
    slices: str = "all"
    each: str = ""

    def __post_init__(self) -> None:
        known = {"unit": UNITS, "test": TESTS, "alternative": ALTERNATIVES, "choice of slices": SLICES}
        for key, values in known.items():
            require_known(f"comparison {self.name!r}", getattr(self, key.split()[-1]), values, what=key)
        unknown = {*self.a, *self.b, *self.where, *([self.each] if self.each else [])} - set(COLUMNS)
        if unknown:
            raise StudyError(
                f"comparison {self.name!r}",
                f"unknown columns {', '.join(sorted(unknown))}.",
                f"Known: {', '.join(COLUMNS)}.",
            )
        if not self.margin > 0:
            raise StudyError(f"comparison {self.name!r}", "the margin is not positive.", "Try 0.05.")


def declare(item: Mapping | Comparison) -> Comparison:
    """Return a comparison from a row of a study's YAML.

    Parameters
    ----------
    item : mapping
        Fields of `Comparison`. Short form: ``vary: prompt, a: one_box, b: one_point`` stands for
        ``a: {prompt: one_box}, b: {prompt: one_point}``; ``task`` and ``model`` stand for entries
        of ``where``.

    Examples
    --------
    >>> item = {"name": "box", "task": "2d", "vary": "prompt", "a": "one_box", "b": "one_point"}
    >>> declare(item).a, declare(item).where
    ({'prompt': 'one_box'}, {'task': '2d'})
    """
    if isinstance(item, Comparison):
        return item
    item = dict(item)
    label = f"comparison {item.get('name', '(without a name)')!r}"
    for side in ("name", "a", "b"):
        if side not in item:
            raise StudyError(label, f"{side!r} is missing.", "A comparison needs name, a and b.")
    varied = item.pop("vary", None)
    where = dict(item.pop("where", {}))
    where |= {column: item.pop(column) for column in ("task", "model") if column in item}
    for side in ("a", "b"):
        if not isinstance(item[side], Mapping):
            if varied is None:
                raise StudyError(label, f"{side} is a plain value.", "Say in 'vary' of which column.")
            item[side] = {varied: item[side]}
    unknown = set(item) - {f.name for f in fields(Comparison)}
    if unknown:
        raise StudyError(
            label,
            f"unknown entries {', '.join(sorted(unknown))}.",
            f"Known: vary, task, model, {', '.join(f.name for f in fields(Comparison))}.",
        )
    return Comparison(where=where, **item)
