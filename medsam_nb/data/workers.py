"""Work on many items in processes: one that the system ends costs no other item anything.

The standard pool gives up every item once a process of it is ended (out of memory, a library that crashes).
Here the items that ran at that moment are tried once more, each alone, and the others go on.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process


class ProcessKilled(Exception):
    """The process of an item was ended twice, the second time while nothing else ran."""


def run_each(function: Callable, items: Sequence, workers: int) -> Iterator[tuple[object, Future]]:
    """Yield every item with its finished future, in the order in which they end.

    Closing the generator, or an exception while it works (such as KeyboardInterrupt), ends the processes.

    Parameters
    ----------
    function : callable
        Of one item; of a module, as it is called in other processes.
    items : sequence
    workers : int
        Processes, at least 1. One item more is under way, so that none stands idle while a result is
        stored, and few are suspect when one is ended.

    Yields
    ------
    item
    future : Future
        Its `result()` is the function's, or raises what the function raised, or `ProcessKilled`.
    """
    waiting = deque(items)
    while waiting:
        suspects = yield from _together(function, waiting, workers)
        for item in suspects:
            for killed in (yield from _together(function, deque([item]), 1)):
                future: Future = Future()
                future.set_exception(ProcessKilled())
                yield killed, future


def _together(
    function: Callable, waiting: deque, workers: int
) -> Generator[tuple[object, Future], None, list]:
    """Yield what is finished; return the items that ran when a process was ended; the others still wait."""
    running: dict[Future, object] = {}
    with _pool(workers) as pool:
        while waiting or running:
            broken = False
            try:
                while waiting and len(running) <= workers:
                    running[pool.submit(function, waiting[0])] = waiting[0]
                    waiting.popleft()
            except BrokenProcessPool:
                broken = True
                if not running:  # a process was ended before it began; without progress none would ever be
                    return [waiting.popleft()]
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            if broken or any(_was_killed(future) for future in done):
                done, _ = wait(running)  # all are: well, or given up
                yield from [(running.pop(future), future) for future in done if not _was_killed(future)]
                return list(running.values())
            yield from [(running.pop(future), future) for future in done]
    return []


def _was_killed(future: Future) -> bool:
    return isinstance(future.exception(), BrokenProcessPool)


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes end with the block, at once if it is left by an exception."""
    before = set(active_children())
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(active_children()) - before:
            process.kill()
            process.join()
        raise
    pool.shutdown()


def _begin() -> None:
    """Leave Ctrl-C to the parent, and end with it, however it is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
