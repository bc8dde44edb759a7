"""`python -m pylonny`."""

from __future__ import annotations

import sys

from pylonny.cli import main

if __name__ == "__main__":
    sys.exit(main())
