"""``python -m aibenchd``."""

import sys

from aibenchd import cli

sys.exit(cli.main())
