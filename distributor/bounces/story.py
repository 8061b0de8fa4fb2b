"""One look into the mailbox."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from distributor.bounces.mailbox import Mailbox
from distributor.bounces.reading import read_bounce
from distributor.channels.email.identity import BounceAddresses
from distributor.errors import DistributorError
from distributor.model import Event

log = logging.getLogger(__name__)

#: Mails of one look: after it, whoever looks may have something else to do.
MOST = 500


@dataclass(frozen=True)
class Collected:
    """What one look found: mails, and how many of them said something that we believe."""

    mails: int = 0
    events: int = 0


def collect(
    mailbox: Mailbox,
    addresses: BounceAddresses,
    record: Callable[[Sequence[Event]], object],
    *,
    most: int = MOST,
) -> Collected:
    """Records what lies in the mailbox, then moves it away: a crash in between records it again, which changes nothing.

    Raises MailboxDown; ServiceDown leaves the mail where it is.
    """
    mails = events = 0
    with mailbox as opened:
        for number in opened.waiting()[:most]:
            try:
                events += _take(opened.read(number), addresses, record)
            except DistributorError:
                raise
            except Exception:
                # A bug that one mail brings out must not keep all behind it waiting; it stays where it is.
                log.exception("bounce_failed uid=%s", number.decode())
                continue
            opened.put_away(number)
            mails += 1
    return Collected(mails, events)


def _take(raw: bytes, addresses: BounceAddresses, record: Callable[[Sequence[Event]], object]) -> bool:
    event = read_bounce(raw, addresses, datetime.now(UTC))
    if event is not None:
        record([event])
    return event is not None
