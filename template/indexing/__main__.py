"""`python -m indexing index`: as `uv run knowledge index`, where the app is not installed."""

import sys

from indexing.cli import main

sys.exit(main())
