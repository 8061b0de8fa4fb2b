"""Bounces and complaints that come as mail: read from a mailbox, believed by their address, told as events."""

from distributor.bounces.mailbox import Mailbox
from distributor.bounces.reading import read_bounce
from distributor.bounces.story import Collected, collect

__all__ = ["Collected", "Mailbox", "collect", "read_bounce"]
