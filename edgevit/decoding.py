"""One decoder at a time: what msgspec notes of a type at its first use, several threads at once damage.

With msgspec 0.22 threads that read their first bundle at once can end the process with a segmentation fault
(``tests/test_decoding.py``).
"""

from __future__ import annotations

import os
import threading

#: Held while msgspec decodes into a type; a type that decodes another one may take it again.
LOCK = threading.RLock()

# A process that is forked while another thread decodes would find the lock taken for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=LOCK.acquire, after_in_parent=LOCK.release, after_in_child=LOCK.release)
