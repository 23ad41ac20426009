"""What the C library does with freed memory."""

import ctypes

# of mallopt, from malloc.h
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
LARGEST = 2**31 - 1  # mallopt takes an int


def keep_freed_memory() -> bool:
    """Keep freed memory for the next tensors rather than give it back to the system.

    glibc maps a large tensor anew each time, and the system clears it page by page: in a training
    on the CPU thousands of pages a step. The process stays as large as it was at its largest.

    Returns:
        whether the C library can be told so: glibc can.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no such function, or no such library
        return False
    options = {TRIM_THRESHOLD: LARGEST, TOP_PAD: 64 * 2**20, MMAP_MAX: 0}
    return all([mallopt(option, value) for option, value in options.items()])
