"""Sample random images (the paper's second command): `dynamicdps sample` with the same options."""

import sys

from dynamicdps.cli import main

if __name__ == "__main__":
    sys.exit(main(["sample", *sys.argv[1:]]))
