"""Which notebooks of a study may run at the same time: each says which others it needs.

A notebook says so in its metadata, `{"medsam_nb": {"needs": ["02_evaluate_2d"]}}`; of those only the ones
that the study runs count. One that says nothing needs all before it, as when a person runs them in order.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import nbformat

from medsam_nb.errors import StudyError
from medsam_nb.workbook.study import notebook_path


def at_once() -> int:
    """Return how many notebooks run at the same time: two, where there are cores for them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(2, cores)


@dataclass
class Schedule:
    """Notebooks in their order, and which of them may start.

    Those that compute in processes of their own take turns at that (`owner.computing`): one draws what it has
    found while the next computes.

    Attributes
    ----------
    needs : dict of str to tuple of str
        Every notebook of the study, in order, with those of the study that must have ended before it.
    most : int
        Notebooks at the same time.
    """

    needs: Mapping[str, Sequence[str]]
    most: int = 1
    running: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)

    def ready(self) -> list[str]:
        """Return the notebooks that may start now, all of them at once.

        Examples
        --------
        >>> schedule = Schedule({"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}, most=2)
        >>> schedule.ready()
        ['a']
        >>> schedule.done.add("a")
        >>> schedule.ready()
        ['b', 'c']
        """
        found: list[str] = []
        ended = self.done | self.failed
        for name, needed in self.needs.items():
            busy = self.running | set(found)
            if len(busy) >= self.most:
                break
            waits = name in busy | ended or not set(needed) <= ended
            if not waits and not self._in_vain(name):
                found.append(name)
        return found

    @property
    def finished(self) -> bool:
        """Whether no notebook is left."""
        return set(self.needs) <= self.done | self.failed

    def in_vain(self) -> list[str]:
        """Return notebooks that will not run: all that they need has failed.

        Examples
        --------
        >>> schedule = Schedule({"a": (), "b": ("a",), "c": ("a", "b")}, failed={"a"})
        >>> schedule.in_vain()
        ['b']
        """
        return [name for name in self.needs if name not in self.done | self.failed and self._in_vain(name)]

    def _in_vain(self, name: str) -> bool:
        needed = self.needs[name]
        return bool(needed) and set(needed) <= self.failed


def schedule(names: Collection[str], most: int) -> Schedule:
    """Return the schedule of a study's notebooks, by what they say of themselves.

    Raises
    ------
    StudyError
        If a notebook's metadata say something else than which notebooks it needs.
    """
    order = list(names)
    needs = {name: _needs(name, order[:place]) for place, name in enumerate(order)}
    return Schedule(needs, most)


def _needs(name: str, before: Sequence[str]) -> tuple[str, ...]:
    path = notebook_path(name)
    said = nbformat.read(path, as_version=4).metadata.get("medsam_nb", {})
    if "needs" not in said:
        return tuple(before)
    if not isinstance(said["needs"], list) or not all(isinstance(each, str) for each in said["needs"]):
        raise StudyError(
            path,
            "its metadata `medsam_nb: needs` are no list of notebooks.",
            'Write, as an example, ["01_prepare_data"].',
        )
    return tuple(each for each in before if each in said["needs"])
