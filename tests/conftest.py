"""One thread a process: the tests run side by side, and tiny tensors gain nothing from more."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
