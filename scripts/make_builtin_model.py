"""Store a run's weights in half the space, as a built-in model: ``make_builtin_model.py RUN FILE``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from edgevit.models.loading import load_checkpoint


def main() -> None:
    """Read the run, write the file."""
    run, target = sys.argv[1:]
    load_checkpoint(run).save(Path(target), dtype=torch.float16)


if __name__ == "__main__":
    main()
