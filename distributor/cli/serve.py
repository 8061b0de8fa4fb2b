"""Commands that stay: run, worker, beat, web, sandbox."""

from __future__ import annotations

import errno
import logging
import socket
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distributor.cli.context import distributor_of, stopping_on_signals
from distributor.cli.output import say
from distributor.errors import ConfigError, RequestRefused

if TYPE_CHECKING:
    import uvicorn

    from distributor.bootstrap import Distributor


def register(app: typer.Typer) -> None:
    for command in (run, worker, beat, web, sandbox):
        app.command()(command)


def run(context: typer.Context) -> None:
    """Run everything in one process: scheduler, workers, web pages. All that one small server needs."""
    from distributor.bootstrap import sole_sender, tune_interpreter  # noqa: PLC0415 - cli/__init__.py
    from distributor.runner import Runner  # noqa: PLC0415 - cli/__init__.py

    logging.getLogger().setLevel(logging.INFO)
    with distributor_of(context) as distributor, sole_sender(distributor.settings) as may_send:
        if not may_send:
            raise RequestRefused("another `distributor run` or `send` is at work on this database already")
        runner = Runner(distributor)
        server, listening = _server(distributor), _listen(distributor)
        stop = threading.Event()
        pages = threading.Thread(target=server.run, args=([listening],), name="web")
        tune_interpreter()
        with stopping_on_signals(stop), _heard_by_polling(distributor):
            runner.start()
            pages.start()
            say(
                f"scheduler and workers are running; pages at {distributor.settings.web.base_url}; Ctrl-C stops"
            )
            stop.wait()
            say("stopping: messages in hand are finished first")
            server.should_exit = True
            runner.stop.set()
            runner.join()
            pages.join()


def worker(
    context: typer.Context,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Processes; each opens engine.lanes × engine.connections a channel.")
    ] = 2,
) -> None:
    """Run a Celery worker (needs a broker and PostgreSQL). Start as many as you like, on as many hosts."""
    from distributor.tasks import configure, queues  # noqa: PLC0415 - cli/__init__.py

    with distributor_of(context) as distributor:
        app = configure(_with_broker(distributor).settings)
        listened = ",".join(queues(distributor.channels))
    app.worker_main(
        [
            "worker",
            "--loglevel=INFO",
            f"--concurrency={concurrency}",
            f"--queues={listened}",
            "--without-gossip",
            "--without-mingle",
        ]
    )


def beat(context: typer.Context) -> None:
    """Run the metronome of the Celery workers. A second one does no harm: the day's issue is the database's to decide."""
    from distributor.tasks import configure  # noqa: PLC0415 - cli/__init__.py

    with distributor_of(context) as distributor:
        app = configure(_with_broker(distributor).settings)
    app.start(["beat", "--loglevel=INFO", "--pidfile="])


def web(context: typer.Context) -> None:
    """Serve the pages (sign-up, confirm, preferences, unsubscribe, issues, archive) and what programs call (/docs)."""
    logging.getLogger().setLevel(logging.INFO)
    # uvicorn takes the signals while it runs and raises them again at its end; that is no reason to end badly.
    with distributor_of(context) as distributor, stopping_on_signals(threading.Event()):
        _server(distributor).run([_listen(distributor)])


def sandbox(
    inbox: Annotated[
        Path, typer.Option(help="The folder that keeps what arrives; an old one may be opened again.")
    ] = Path("var/inbox"),
    smtp_port: Annotated[int, typer.Option(help="The port of the mail catcher.")] = 2525,
    http_port: Annotated[
        int, typer.Option(help="The port of the Telegram, WeCom and WeChat simulators and of the inbox page.")
    ] = 8026,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
) -> None:
    """Run a mail catcher and simulators of Telegram, WeCom and WeChat, with a page to look at what arrived."""
    from distributor.sandbox.server import run_sandbox  # noqa: PLC0415 - an optional extra

    try:
        run_sandbox(
            inbox,
            smtp_port,
            http_port,
            host=host,
            announce=lambda it: say(f"inbox: {it.url}/   mail: {host}:{it.smtp_port}   Ctrl-C stops"),
        )
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise RequestRefused(
            f"port {smtp_port} or {http_port} of {host} is in use, by another sandbox perhaps; "
            "choose others with --smtp-port and --http-port"
        ) from None


def _heard_by_polling(distributor: Distributor) -> AbstractContextManager[object]:
    """What readers say to the bot, with bot.mode = "polling"."""
    if distributor.settings.bot.mode != "polling":
        return nullcontext()
    from distributor.bootstrap import poller_of  # noqa: PLC0415 - cli/__init__.py

    return poller_of(distributor)


def _with_broker(distributor: Distributor) -> Distributor:
    if not distributor.settings.broker.configured:
        raise ConfigError(
            [
                "workers need a broker: set DISTRIBUTOR_BROKER_URL (redis://…), or use `distributor run`, which needs none"
            ]
        )
    return distributor


def _listen(distributor: Distributor) -> socket.socket:
    """The pages' port, taken now: uvicorn would find it taken in its thread, where nobody notices."""
    web = distributor.settings.web
    try:
        listening = socket.create_server(
            (web.host, web.port), family=socket.AF_INET6 if ":" in web.host else socket.AF_INET
        )
        # Once more from its number: then it knows its protocol, which create_server leaves out, and asyncio turns
        # Nagle's algorithm off for TCP alone. An answer on a kept connection took 40 ms longer.
        return socket.socket(fileno=listening.detach())
    except OSError as error:
        raise RequestRefused(
            f"cannot listen on {web.host}:{web.port}: {error.strerror}; set web.port in config/distributor.toml"
        ) from None


def _server(distributor: Distributor) -> uvicorn.Server:
    import uvicorn  # noqa: PLC0415 - 0.4 s, with the pages, that only `run` and `web` need

    from distributor.web import create_app  # noqa: PLC0415 - as above
    from distributor.web.limits import punctual  # noqa: PLC0415 - as above

    web = distributor.settings.web
    config = uvicorn.Config(
        create_app(distributor),
        host=web.host,
        port=web.port,
        http=punctual(web.receive_time.total_seconds()),
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # uvicorn believes whoever connects from this host; web/client.py knows whom to believe
    )
    return uvicorn.Server(config)
