"""The command line: each command parses, calls one function, and prints."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    import sys

    from edgevit.cli.app import run

    sys.exit(run(sys.argv[1:]))
