"""A person asks: what do you keep about me, and: forget me."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from distributor.audience import Trace, mention
from distributor.dispatch.engine import Engine
from distributor.errors import RequestRefused
from distributor.ledger import LogEntry

#: Deliveries of one address that are shown: more than any retention keeps.
MOST = 100_000
#: Seconds between two looks whether a worker still has a mail in hand.
LOOK = 0.5

#: What each part of the document is, for whoever reads it.
MEANINGS: Mapping[str, str] = {
    "subscriber": "The address, the name and language that came with it, and when it came.",
    "subscriptions": "The newsletters it was signed up for, from where, since when, with tags and attributes.",
    "consents": "What was agreed to or taken back, when, from which network address, and in which words.",
    "letters": "Mails outside of issues: to confirm, to welcome.",
    "links": "One-time addresses that were mailed, such as one to confirm. What stood in them is not kept.",
    "deliveries": "Issues that were sent there, with each attempt and the answer of the other side.",
    "events": "What was reported afterwards: left, bounced, complained.",
    "suppressions": "Reasons to send nothing there. An entry that begins with 'erased:' is what is left of an address.",
    "resends": "Times that somebody asked to send an issue to this address again.",
    "webhook_calls": "What was told to other systems of the operator.",
}


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What became of a person's traces.

    `files`: sent logs and journals of this host that named them; `calls`: webhook calls that do, and are still to go out.
    """

    places: Sequence[tuple[str, str]]
    skipped: int
    deliveries: int
    files: int
    calls: int


def record_of_person(engine: Engine, channel: str, address: str) -> Mapping[str, Any]:
    """Everything that is kept about a person, for them to read: a document for JSON."""
    return {
        "asked": {"channel": channel, "address": address, "at": datetime.now(UTC)},
        "meanings": MEANINGS,
        "places": [_record(engine, trace) for trace in engine.audience.traces(channel, address)],
    }


def forget(
    engine: Engine, channel: str, address: str, *, patience: timedelta = timedelta(seconds=30)
) -> Forgotten:
    """Erases a person: the address, and the chats or the mailbox it is linked to. Again and again is harmless.

    What is pending is skipped first. Raises RequestRefused for an address of the configuration, and when a worker still
    has a delivery in hand after `patience`; SentLogBroken.
    """
    traces = engine.audience.traces(channel, address)
    _refuse_destinations(engine, traces)
    engine.audience.withdraw(traces)
    skipped = _skip_pending(engine, traces)
    _wait_for_workers(engine, traces, patience)
    erased = _erase_deliveries(engine, traces)
    calls = engine.audience.erase(traces)
    # A window that was being written has seen the subscriber, and is committed by now.
    engine.ledger.finish_windows()
    skipped += _skip_pending(engine, traces)
    erased += _erase_deliveries(engine, traces)
    return Forgotten(
        places=[(trace.channel, trace.address) for trace in traces],
        skipped=skipped,
        deliveries=erased,
        files=_erase_files(engine, traces),
        calls=calls,
    )


def _record(engine: Engine, trace: Trace) -> Mapping[str, Any]:
    found = engine.ledger.log(None, channel=trace.channel, address=trace.address, limit=MOST)
    kept = engine.audience.record_of(trace)
    return {
        "channel": trace.channel,
        "address": trace.address,
        **kept,
        "deliveries": [_delivery(engine, entry) for entry in found],
    }


def _delivery(engine: Engine, entry: LogEntry) -> Mapping[str, Any]:
    issue = engine.ledger.issue(entry.issue_id)
    of_issue = {"newsletter": issue.newsletter, "date": issue.local_date, "title": issue.title}
    return {**of_issue, **asdict(entry)}


def _refuse_destinations(engine: Engine, traces: Sequence[Trace]) -> None:
    ours = {(trace.channel, trace.address) for trace in traces}
    for newsletter in engine.newsletters.values():
        for name in newsletter.channels:
            for place in engine.channels[name].destinations(newsletter):
                if (place.channel, place.address) in ours:
                    raise RequestRefused(
                        f"{place.address} is a destination of {newsletter.slug} ({name}): it would be sent to again. "
                        f"Take it out of config/newsletters/{newsletter.slug}.toml first"
                    )


def _skip_pending(engine: Engine, traces: Sequence[Trace]) -> int:
    return sum(engine.ledger.skip_pending(trace.channel, trace.address) for trace in traces)


def _erase_deliveries(engine: Engine, traces: Sequence[Trace]) -> int:
    return sum(engine.ledger.erase(trace.channel, trace.address, trace.instead) for trace in traces)


def _wait_for_workers(engine: Engine, traces: Sequence[Trace], patience: timedelta) -> None:
    """What a worker has in hand comes back with the address in it, and with what the server says of it."""
    looks = int(patience.total_seconds() / LOOK)
    while busy := _in_hand(engine, traces):
        if looks <= 0:
            raise RequestRefused(
                f"{busy} is being sent to {traces[0].address} at this moment. Nothing more will be; "
                "what is kept is erased when you ask again in a few minutes"
            )
        looks -= 1
        engine.sleep(LOOK)


def _in_hand(engine: Engine, traces: Sequence[Trace]) -> str:
    """What a worker is sending to them; empty: nothing."""
    for trace in traces:
        if issues := engine.ledger.in_hand(trace.channel, trace.address):
            return f"issue {issues[0]}"
    return "a letter" if engine.audience.letters_in_hand(traces) else ""


def _erase_files(engine: Engine, traces: Sequence[Trace]) -> int:
    files = 0
    for trace in traces:
        if engine.sent_log:
            files += engine.sent_log.erase(trace.channel, trace.address, trace.instead)
        if engine.journals:
            pattern = mention(trace.address).pattern.encode()
            files += engine.journals.erase(re.compile(pattern, re.IGNORECASE))
    return files
