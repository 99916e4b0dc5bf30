"""`python -m researcher` is the `researcher` command."""

from __future__ import annotations

import sys

from researcher.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
