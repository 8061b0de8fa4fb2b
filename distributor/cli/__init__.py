"""The command line. Each command parses, calls a story, and prints; errors say what, where, and what to do.

Exit status: 0 done (refused recipients are normal), 1 incomplete, unconfirmed or stopped, 2 wrong use.

`--help`, and every command's own start, import all modules of this package. So they import at their top what is light
(typer, model, errors), and what a command calls inside it: everything together takes about two seconds. A test in
tests/test_cli.py holds it.
"""

from distributor.cli.app import main

__all__ = ["main"]
