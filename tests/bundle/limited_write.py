"""Makes or changes a bundle where no file may grow beyond a limit; run as a script.

Usage: limited_write.py PATH LIMIT EXISTING, of which the last is what to do where there is a bundle, or "add". Ends
with 3 where it is refused, and prints why.
"""

import resource
import sys
import warnings
from pathlib import Path

from conftest import add_int8, make_bundle

from edgevit.bundle.store import Bundle
from edgevit.errors import StorageError

warnings.simplefilter("error")
path, limit, existing = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
(path.parent / "source200000.onnx").write_bytes(b"x" * 200_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # Python ignores SIGXFSZ, so a write ends in EFBIG
try:
    if existing == "add":
        add_int8(Bundle.open(path), b"x" * 2000)
    else:
        make_bundle(path, b"x" * 200_000, existing=existing)
except StorageError as error:
    sys.stdout.write(f"{error.message} | {error.remedy}")
    sys.exit(3)
