"""What commands share: the project's settings and what is built from them."""

import getpass
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from distributor.bootstrap import Distributor, build, prepare
from distributor.settings import Settings, load_settings


def settings_of(context: typer.Context) -> Settings:
    """The project's settings. Raises ConfigError."""
    root = context.obj
    assert isinstance(root, Path)
    return load_settings(root)


@contextmanager
def distributor_of(context: typer.Context, *, prepared: bool = True) -> Iterator[Distributor]:
    """Everything, built; its database looked at first (`prepared`). Raises ConfigError, ServiceDown."""
    distributor = build(settings_of(context))
    try:
        if prepared:
            prepare(distributor)
        yield distributor
    finally:
        distributor.close()


@contextmanager
def stopping_on_signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and Ctrl-C set the event: work in hand is finished, then the process ends."""
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def whoever() -> str:
    """Who gives the command, for the log."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "somebody"
