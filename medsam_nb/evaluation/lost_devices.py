"""A process that has lost its GPU ends: whatever else it computed there would fail, too."""

import os
import sys
from collections.abc import Callable
from multiprocessing import parent_process

import torch

from medsam_nb.errors import printable

# PyTorch before 2.8 has no error of its own for this: there it stays one of the item.
DEVICE_ERROR = getattr(torch, "AcceleratorError", ())


def ending_with_the_device(function: Callable, item: object) -> object:
    """Return a function of an item; end the process instead if it is a worker's and its device failed.

    After such an error (of a kernel, not one of too little memory) each later call of a process fails. A
    worker that ends is replaced, and its item tried once more, alone (`workers.run_each`).

    Raises
    ------
    Exception
        What the function raises; an error of the device only where there is no worker to end.
    """
    try:
        return function(item)
    except DEVICE_ERROR as error:
        if parent_process() is None:
            raise
        print(printable(f"The device failed: {error}. The worker ends."), file=sys.stderr, flush=True)
        os._exit(1)
