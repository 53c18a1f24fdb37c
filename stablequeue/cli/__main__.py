"""`python -m stablequeue.cli` is `stablequeue`."""

import sys

from stablequeue.cli import main

sys.exit(main())
