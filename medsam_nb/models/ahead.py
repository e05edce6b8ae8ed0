"""Slices that are prepared in a thread before they are asked for, while the network is busy."""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import torch

SLICES_AHEAD = 2


class Ahead:
    """Work that is done in a thread before it is asked for.

    Parameters
    ----------
    work : callable (key) -> result
        It must not hold what holds this object, which would then outlive its use.
    """

    def __init__(self, work: Callable[[int], torch.Tensor]) -> None:
        self._work, self._thread = work, ThreadPoolExecutor(1, "slices ahead")
        self._upcoming: deque[int] = deque()
        self._begun: dict[int, Future[torch.Tensor]] = {}

    def expect(self, keys: Iterable[int]) -> None:
        """Say what will be asked for next, in its order; the thread begins with the first."""
        self._upcoming = deque(dict.fromkeys(keys))
        self._begun = {key: self._begun[key] for key in self._upcoming if key in self._begun}
        self._go_on()

    def take(self, key: int) -> torch.Tensor:
        """Return a result, expected or not, and let the thread go on with what comes after it."""
        begun = self._begun.pop(key, None)
        self.passed(key)
        return self._work(key) if begun is None else begun.result()

    def passed(self, key: int) -> None:
        """Say that this is not needed any more, nor what was expected before it."""
        if key in self._upcoming:
            while (other := self._upcoming.popleft()) != key:
                self._begun.pop(other, None)
            self._begun.pop(key, None)
        self._go_on()

    def _go_on(self) -> None:
        for key in islice(self._upcoming, SLICES_AHEAD):
            if key not in self._begun:
                self._begun[key] = self._thread.submit(self._work, key)
