"""What commands share: the project's settings and what is built from them."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from distributor.bootstrap import Distributor
    from distributor.settings import Settings


def default_project() -> Path:
    """Where the project is looked for when `--project` does not say."""
    return Path(os.environ.get("DISTRIBUTOR_PROJECT", ".")).resolve()


def program() -> str:
    """How this command was called: by name when it is on the PATH, else by its path."""
    called = Path(sys.argv[0])
    return "distributor" if shutil.which("distributor") or called.name != "distributor" else str(called)


def hint(settings: Settings, words: str) -> str:
    """A command as it works from where the user stands: with `-C` when the project would not be found without."""
    root, here = settings.root, Path.cwd()
    if root == default_project():
        return f"{program()} {words}"
    short = root.relative_to(here) if root.is_relative_to(here) else root
    return f"{program()} -C {shlex.quote(str(short))} {words}"


def settings_of(context: typer.Context) -> Settings:
    """The project's settings. Raises ConfigError."""
    from distributor.settings import load_settings  # noqa: PLC0415 - cli/__init__.py

    root = context.obj
    assert isinstance(root, Path)
    return load_settings(root)


def known_channel(name: str | None) -> str | None:
    """The callback of an option: a channel that is installed, or none."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - cli/__init__.py

    there = entry_points(group="distributor.channels").names
    if name is None or name in there:
        return name
    raise typer.BadParameter(f"no channel is called {name!r}; there are: {', '.join(sorted(there))}")


@contextmanager
def distributor_of(context: typer.Context, *, prepared: bool = True) -> Iterator[Distributor]:
    """Everything, built; its database looked at first (`prepared`). Raises ConfigError, ServiceDown."""
    from distributor.bootstrap import build, prepare  # noqa: PLC0415 - cli/__init__.py

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
