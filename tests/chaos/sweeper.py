"""A process that sweeps without a pause: `python sweeper.py FOLDER`."""

import sys
import time
from pathlib import Path

from distributor.bootstrap import build
from distributor.dispatch import sweep
from distributor.errors import ServiceDown
from distributor.settings import load_settings


def main() -> None:
    distributor = build(load_settings(Path(sys.argv[1])))
    while True:
        try:
            sweep(distributor.engine)
        except ServiceDown:
            time.sleep(0.2)
        time.sleep(0.02)


if __name__ == "__main__":
    main()
