"""The command line: each command parses, calls one function, and prints."""

from typing import NoReturn


def main() -> None:
    """Run the command line and leave with its exit code."""
    import sys

    try:
        from edgevit.cli.app import run
        from edgevit.cli.load_later import load_later
        from edgevit.cli.terminal import open_standard_streams

        open_standard_streams()
        load_later()
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while the command line itself was loaded
        code = 130
    _end(code)


def _end(code: int) -> NoReturn:
    """Leave with ``code``, and not wait for an engine that a command has stopped waiting for."""
    import os
    import sys

    from edgevit.limits import still_working

    if still_working():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
