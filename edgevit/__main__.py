"""Run the command line as ``python -m edgevit``."""

from edgevit.cli import main

if __name__ == "__main__":
    main()
