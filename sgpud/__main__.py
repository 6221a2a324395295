"""`python -m sgpud` is the command `sgpud`."""

import sys

from sgpud.cli.main import main

sys.exit(main())
