"""Solve inverse problems (the paper's third command): `dynamicdps enhance` with the same options."""

import sys

from dynamicdps.cli import main
from dynamicdps.models import demo_scan

if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.stdout.write(f"for example: python image_sample.py {demo_scan()} --mask none --quality fast --out enhanced\n")
    sys.exit(main(["enhance", *sys.argv[1:]]))
