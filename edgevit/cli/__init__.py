"""The command line: each command parses, calls one function, and prints."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    import sys

    try:
        from edgevit.cli.app import run
        from edgevit.cli.terminal import open_standard_streams

        open_standard_streams()
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while the command line itself was loaded
        code = 130
    sys.exit(code)
