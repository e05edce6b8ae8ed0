"""Work on many items on other machines, by Dask: a scheduler that runs, or jobs of a queue.

Everything goes by path: the machines share the disk with the workbook. Items are given out in their order,
and a worker's process does one at a time, however many threads it has. Items whose worker is ended are tried
again as often as the scheduler allows, then once more when all others are done, each while nothing else runs:
an item fails for its own sake, never because it waited in the process of another.
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec

from medsam_nb.data.workers import ProcessKilled
from medsam_nb.errors import StudyError, require_known

LOCAL = "local"
# Queues that dask-jobqueue knows; what a job asks for stands in Dask's own configuration (jobqueue.yaml).
QUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "htcondor": "HTCondorCluster",
    "oar": "OARCluster",
    "moab": "MoabCluster",
}
SCHEMES = ("tcp://", "tls://")
# One more try for an item whose worker is ended; no item waits at a worker, where it would be suspect too.
SETTINGS = {"distributed.scheduler.allowed-failures": 1, "distributed.scheduler.worker-saturation": 1.0}
ANSWER_S = 20
NOISY = ("distributed.client", "distributed.utils")  # a client that cannot come back says so in pages


def check_cluster(cluster: str) -> None:
    """Raise StudyError unless this is "local", a queue or a scheduler's address, with Dask there for it."""
    if cluster == LOCAL:
        return
    if not cluster.startswith(SCHEMES):
        known = (LOCAL, *QUEUES)
        require_known("cluster", cluster, known, what="queue, and no address such as tcp://host:8786")
    lacking = [name for name in ("distributed", "dask_jobqueue") if find_spec(name) is None]
    if lacking:
        raise StudyError(
            "cluster",
            f"{cluster!r} needs Dask ({' and '.join(lacking)} cannot be found).",
            "Install it here and on the workers: pip install 'medsam-nb[cluster]'.",
        )


def run_on_cluster(
    function: Callable, items: Sequence, workers: int, cluster: str
) -> Iterator[tuple[object, Future]]:
    """Yield every item with its finished future, in the order in which they end, as `workers.run_each` does.

    Parameters
    ----------
    function : callable
        Of one item; of a module, as it is called on other machines.
    items : sequence
    workers : int
        Of a queue: jobs, each with as many workers as Dask's configuration says. A scheduler has its own.
    cluster : str
        See `check_cluster`.

    Yields
    ------
    item
    future : concurrent.futures.Future

    Raises
    ------
    StudyError
        If the scheduler does not answer, or ends; or if the queue's configuration is not whole.
    """
    import dask
    from distributed import Client, as_completed
    from distributed.client import FutureCancelledError

    with ExitStack() as stack:
        for name in NOISY:
            stack.callback(logging.getLogger(name).setLevel, logging.getLogger(name).level)
        stack.enter_context(dask.config.set(SETTINGS))
        try:
            place = _address(cluster, workers, stack)
            client = stack.enter_context(Client(place, timeout=ANSWER_S))
        except (OSError, ValueError, TypeError) as error:  # a time-out is an OSError
            raise StudyError(
                f"cluster {cluster}",
                f"cannot be reached or started ({error}).",
                "See `Many machines` in docs/speed.md.",
            ) from error
        print(f"dashboard: {client.dashboard_link}")
        work = partial(_in_turn, function)
        given = {
            client.submit(work, item, pure=False, priority=-number): item for number, item in enumerate(items)
        }
        suspects = []
        stack.enter_context(_lost(cluster, FutureCancelledError))
        for ended in as_completed(list(given)):
            item, plain = given.pop(ended), _as_plain(ended)
            ended.release()  # neither scheduler nor worker keeps the result
            if isinstance(plain.exception(), ProcessKilled):
                suspects.append(item)
            else:
                yield item, plain
        for item in suspects:
            alone = client.submit(work, item, pure=False)
            yield item, _as_plain(alone)
            alone.release()


@contextmanager
def _lost(cluster: str, cancelled: type[Exception]) -> Iterator[None]:
    """Say in words that the scheduler has ended: its client gives up every item, and tries to come back."""
    try:
        yield
    except cancelled as error:
        if error.reason != "scheduler-connection-lost":
            raise
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        raise StudyError(
            f"cluster {cluster}",
            "the scheduler has ended, or the connection to it.",
            "What was finished is kept: start the scheduler, and then the study again, which goes on.",
        ) from error


_one_at_a_time = threading.Lock()


def _in_turn(function: Callable, item: object) -> object:
    """Call a function on a worker; networks are patched while they work, so never twice in one process."""
    with _one_at_a_time:
        return function(item)


def _address(cluster: str, workers: int, stack: ExitStack) -> object:
    """Return what a client connects to."""
    if cluster not in QUEUES:
        return cluster
    interrupt = signal.getsignal(signal.SIGINT)
    import dask_jobqueue

    signal.signal(signal.SIGINT, interrupt)  # which that import replaces by an exit without a word
    queue = stack.enter_context(getattr(dask_jobqueue, QUEUES[cluster])())
    queue.scale(jobs=max(workers, 1))
    return queue


def _as_plain(ended) -> Future:
    from distributed.scheduler import KilledWorker

    plain: Future = Future()
    error = ended.exception()
    if error is None:
        plain.set_result(ended.result())
    else:
        plain.set_exception(ProcessKilled() if isinstance(error, KilledWorker) else error)
    return plain
