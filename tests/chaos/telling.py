"""`python telling.py ARGUMENTS`: the command `distributor`, whose processes each say where their code lies."""

import os
import runpy

import distributor


def tell() -> None:
    """In one write, past Celery's logging: the lines of several processes do not mix."""
    os.write(1, f"process {os.getpid()} runs {distributor.__file__}\n".encode())


if __name__ == "__main__":
    os.register_at_fork(after_in_child=tell)
    tell()
    runpy.run_module("distributor", run_name="__main__", alter_sys=True)
