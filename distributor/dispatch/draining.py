"""Draining: a worker sends what is due on a channel with a few lanes, whose leases a keeper renews."""

import threading
import time
from collections.abc import Sequence

from distributor.channels import Channel
from distributor.dispatch.engine import Engine, Stop
from distributor.dispatch.hold import Keeper
from distributor.dispatch.known import KnownIssues
from distributor.dispatch.lane import Lane
from distributor.settings import EngineSettings


def drain(engine: Engine, channel: str, *, seconds: float, stop: Stop | None = None) -> int:
    """Sends what is due on a channel, with as many lanes as set, for at most about `seconds`.

    Returns how many deliveries were tried. `stop` ends it early: each lane finishes the messages it is in.
    """
    deadline = time.monotonic() + seconds
    issues = KnownIssues(engine, channel)
    with Keeper(engine.ledger, engine.settings.lease) as keeper:
        lanes = [
            Lane(
                engine,
                channel,
                width=width,
                issues=issues,
                keeper=keeper,
                deadline=deadline,
                stop=stop or threading.Event(),
            )
            for width in widths(engine.settings, engine.channels[channel])
        ]
        threads = [
            threading.Thread(target=lane.run, name=f"{channel}-{number}") for number, lane in enumerate(lanes)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for lane in lanes:
        if lane.error:
            raise lane.error
    return sum(lane.tried for lane in lanes)


def widths(settings: EngineSettings, channel: Channel) -> Sequence[int]:
    """The connections of each lane. A transport that waits for its answer has a lane of its own: the total is the same."""
    lanes, connections = settings.lanes, settings.connections
    return [connections] * lanes if channel.overlaps else [1] * (lanes * connections)
