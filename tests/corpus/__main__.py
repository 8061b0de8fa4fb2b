"""`python -m tests.corpus`: every post on every channel, held against the platforms' rules, as a table."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest does

from corpus.table import main

if __name__ == "__main__":
    sys.exit(main())
