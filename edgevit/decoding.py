"""One decoder at a time: what msgspec notes of a type at its first use, several threads at once damage.

With msgspec 0.22 four threads that read their first bundle ended the process with a segmentation fault.
"""

from __future__ import annotations

import threading

#: Held while msgspec decodes into a type; a type that decodes another one may take it again.
LOCK = threading.RLock()
