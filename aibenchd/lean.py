"""Imports structlog without rich, which it takes where that is installed. To be imported before anything that logs.

It would be 150 ms and 5 MB that a daemon has no use for, and tracebacks that show the values of variables, secrets among them.
"""

from __future__ import annotations

import sys

if "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]  # so that an import of it fails
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
