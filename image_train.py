"""Train the score-matching model (the paper's first command): `dynamicdps train prior` with the same options."""

import sys

from dynamicdps.cli import main
from dynamicdps.models import demo_scan

if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.stdout.write(f"for example: python image_train.py {demo_scan()} --validation {demo_scan()} --steps 100 --out prior\n")
    sys.exit(main(["train", "prior", *sys.argv[1:]]))
