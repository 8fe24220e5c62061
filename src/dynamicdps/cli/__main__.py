"""`python -m dynamicdps.cli`."""

import sys

from dynamicdps.cli import main

sys.exit(main())
