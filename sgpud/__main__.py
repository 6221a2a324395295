"""`python -m sgpud` is the command `sgpud`."""

import sys

from sgpud.cli import main

sys.exit(main())
