"""Sample random images (the paper's second command): `dynamicdps sample` with the same options."""

import sys

from dynamicdps.cli import main

if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.stdout.write("for example: python image_sample_all.py --n 4 --out samples\n")
    sys.exit(main(["sample", *sys.argv[1:]]))
