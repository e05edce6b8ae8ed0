"""One PyTorch thread per test process: tests run side by side, and results do not depend on the cores."""

import torch

torch.set_num_threads(1)
