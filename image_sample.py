"""Solve inverse problems (the paper's third command): `dynamicdps enhance` with the same options."""

import sys

from dynamicdps.cli import main

if __name__ == "__main__":
    sys.exit(main(["enhance", *sys.argv[1:]]))
