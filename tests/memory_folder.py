"""Where the tests' files lie: in memory, where there is enough; a disk would be waited for thousands of times."""

import os
import shutil
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 - pytest makes a folder of the user's own in it
NEEDED = 6 << 30  # bytes; all tests together leave half of that


def memory_folder() -> Path | None:
    """Return the folder of Linux whose files are kept in memory, unless it is small or may hold no programs."""
    if not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK):
        return None
    if os.statvfs(MEMORY).f_flag & os.ST_NOEXEC or shutil.disk_usage(MEMORY).free < NEEDED:
        return None
    return MEMORY if available_memory() >= 2 * NEEDED else None


def available_memory() -> int:
    """Return how many bytes of memory are free or could be."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), 0)
