"""The command line. Each command parses, calls a story, and prints; errors say what, where, and what to do.

Exit status: 0 done (refused recipients are normal), 1 incomplete, unconfirmed or stopped, 2 wrong use.
"""

from distributor.cli.app import main

__all__ = ["main"]
