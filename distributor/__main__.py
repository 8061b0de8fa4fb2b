"""`python -m distributor` is the command `distributor`."""

from distributor.cli import main

main()
