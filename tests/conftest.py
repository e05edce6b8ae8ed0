"""What holds for all tests.

One PyTorch thread per process: tests run side by side, and results do not depend on the cores. Ctrl-C
interrupts, also where a shell that started the tests in the background told them to ignore it.
"""

import signal
import threading

import torch

torch.set_num_threads(1)
in_main_thread = threading.current_thread() is threading.main_thread()
if in_main_thread and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
