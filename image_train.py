"""Train the score-matching model (the paper's first command): `dynamicdps train prior` with the same options."""

import sys

from dynamicdps.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", "prior", *sys.argv[1:]]))
