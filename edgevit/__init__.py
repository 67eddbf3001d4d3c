"""EdgeViT: from a Vision Transformer checkpoint to a verified, faster INT8 model on a small computer."""

import os

__version__ = "0.1.0"

# onnxruntime reports to its maker, and leaves a device id in the home, unless this is set before its first import in a
# process. Here it is, in all that use EdgeViT and the processes that they start; who wants the reports sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
