"""``python -m dynamicdps``: the command line, where the folder of scripts is not on the path."""

from dynamicdps.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
