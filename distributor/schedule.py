"""Which newsletters are due now, how late is still in time, and what to tell the operator.

The tick is a metronome: it may come twice, late, or from two processes at once. What is sent on a day is decided by
the ledger's unique key on (newsletter, local date), never by the tick.
"""

import hashlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from distributor.alerts import Alerts
from distributor.dispatch import AudienceHeld, Engine, Swept, inspect, open_issue, sweep, write_audience
from distributor.errors import MailboxDown, PostError, RequestRefused, ServiceDown
from distributor.model import DeliveryState, Issue, IssueState, OpenedBy, Tally
from distributor.posts import Pick, PickVerdict, pick_post
from distributor.preflight import Finding, Severity
from distributor.settings import Newsletter

log = logging.getLogger(__name__)

#: The checks of `doctor` run by themselves this long before a send.
CHECK_AHEAD = timedelta(minutes=30)
#: A post that is this late is told, while the scheduler goes on waiting for it.
LATE_AFTER = timedelta(minutes=10)
#: A missed day is looked at for this long; later it is history.
LOOK_BACK = timedelta(hours=24)
#: The end of an issue is told this long after it at the latest.
TOLD_WITHIN = timedelta(days=1)


class Phase(StrEnum):
    """Where now lies, seen from a day's send time."""

    AHEAD = "ahead"  # within CHECK_AHEAD before it
    DUE = "due"  # from it on, as long as the grace lasts
    MISSED = "missed"  # the grace is over


class Decision(StrEnum):
    """What the scheduler decided about a day; each is recorded with its reason."""

    WATCHING = "watching"  # a tick came by
    CHECKED = "checked"
    OPENED = "opened"
    WAITING = "waiting"  # for a post
    NO_POST = "no post"
    HELD = "held"  # a person must look
    MISSED = "missed"


@dataclass(frozen=True)
class Turn:
    """A newsletter's day that has something to decide now."""

    newsletter: Newsletter
    day: date
    due: datetime
    phase: Phase


def due_time(newsletter: Newsletter, day: date) -> datetime:
    """When the day's issue goes out (UTC): the local time, and the same jitter for everybody who asks."""
    schedule = newsletter.schedule
    local = datetime.combine(day, schedule.time, tzinfo=newsletter.zone)
    share = random.Random(f"{newsletter.slug} {day}").random()  # noqa: S311 - spreads load, keeps no secret
    return (local.astimezone(UTC) + schedule.jitter * share).replace(microsecond=0)


def turns(newsletter: Newsletter, now: datetime) -> Iterator[Turn]:
    """The days of a newsletter that matter now: today, and yesterday, whose grace may reach past midnight."""
    today = now.astimezone(newsletter.zone).date()
    for day in (today - timedelta(days=1), today, today + timedelta(days=1)):
        if not newsletter.schedule.sends_on(day):
            continue
        due = due_time(newsletter, day)
        if (phase := phase_of(due, now, newsletter.schedule.grace)) is not None:
            yield Turn(newsletter, day, due, phase)


def phase_of(due: datetime, now: datetime, grace: timedelta) -> Phase | None:
    """None when the day is too far away to matter."""
    if due - CHECK_AHEAD <= now < due:
        return Phase.AHEAD
    if due <= now <= due + grace:
        return Phase.DUE
    if due + grace < now <= due + grace + LOOK_BACK:
        return Phase.MISSED
    return None


def next_due(newsletter: Newsletter, now: datetime) -> datetime | None:
    """The next send time (UTC) within a year; None when the schedule holds none."""
    today = now.astimezone(newsletter.zone).date()
    for offset in range(366):
        day = today + timedelta(days=offset)
        if newsletter.schedule.sends_on(day) and (due := due_time(newsletter, day)) > now:
            return due
    return None


class Scheduler:
    """Decides, records and tells; opens issues through the engine. `check` runs the doctor: lines of what is wrong. `forget` drops what
    is older than retention allows."""

    def __init__(
        self,
        engine: Engine,
        alerts: Alerts,
        folder: Callable[[Newsletter], Path],
        check: Callable[[], Sequence[str]],
        forget: Callable[[], None],
    ) -> None:
        self.engine, self.alerts, self.check, self.forget = engine, alerts, check, forget
        self.folder = folder

    def tick(self, now: datetime) -> None:
        """Looks at every newsletter once; one newsletter's trouble never stops another's issue."""
        for newsletter in self.engine.newsletters.values():
            today = now.astimezone(newsletter.zone).date()
            if self.engine.ledger.record_tick(newsletter.slug, today, Decision.WATCHING, ""):
                self.forget()  # once a day and newsletter: what retention no longer keeps
            for turn in turns(newsletter, now):
                try:
                    self._take(turn, now)
                except ServiceDown:  # nothing can be decided, recorded or told now; the next tick tries again
                    raise
                except Exception as error:
                    log.exception("tick newsletter=%s day=%s", newsletter.slug, turn.day)
                    self._hold(turn, f"the scheduler could not do its work: {type(error).__name__}: {error}")
        self.engine.ledger.beat("beat", self.engine.worker)

    def _take(self, turn: Turn, now: datetime) -> None:
        if issue := self.engine.ledger.issue_of(turn.newsletter.slug, turn.day):
            if issue.state is IssueState.WAITING:  # asked once by its key; also after a crash between the two
                self._ask_for_approval(turn, issue)
            return
        TAKES[turn.phase](self, turn, now)

    def _ahead(self, turn: Turn, now: datetime) -> None:
        if not self._record(turn, Decision.CHECKED, "the checks before the send"):
            return
        if wrong := [*self.check(), *self._wrong_with_post(turn, now)]:
            self.alerts.tell(
                f"check:{turn.newsletter.slug}:{turn.day}",
                f"{turn.newsletter.slug} {turn.day}: something will go wrong at {_clock(turn)}",
                "The checks before the send found:\n\n"
                + "\n".join(wrong)
                + "\n\nSee all of them: distributor doctor   and   distributor check",
            )

    def _wrong_with_post(self, turn: Turn, now: datetime) -> Sequence[str]:
        """What would stop the day's post, if it is there already: half an hour is enough to mend it."""
        newsletter = turn.newsletter
        pick = pick_post(self.folder(newsletter), turn.day, newsletter.zone, now=now)
        if pick.post is None:
            return [pick.detail] if pick.verdict in {PickVerdict.BROKEN, PickVerdict.AMBIGUOUS} else []
        inspection = inspect(self.engine, newsletter, pick.post, turn.day)
        return [str(finding) for finding in inspection.of(Severity.ERROR)]

    def _due(self, turn: Turn, now: datetime) -> None:
        newsletter = turn.newsletter
        pick = pick_post(self.folder(newsletter), turn.day, newsletter.zone, now=now)
        VERDICTS[pick.verdict](self, turn, now, pick)

    def _missed(self, turn: Turn, _now: datetime) -> None:
        slug, day = turn.newsletter.slug, turn.day
        since = self.engine.ledger.watched_since(slug)
        if since is None or turn.due < since:
            return  # before this installation looked after anything
        if any(
            row["decision"] == Decision.NO_POST
            for row in self.engine.ledger.ticks(slug)
            if row["local_date"] == day
        ):
            return
        if self._record(
            turn,
            Decision.MISSED,
            f"nothing went out within {turn.newsletter.schedule.grace} of {_clock(turn)}",
        ):
            self.alerts.tell(
                f"missed:{slug}:{day}",
                f"{slug} {day}: the issue was missed",
                f"Its time was {_clock(turn)}; nothing was sent within the grace of {turn.newsletter.schedule.grace}, "
                f"and old news is not sent by itself.\n\nTo send it all the same: distributor send --newsletter {slug} --date {day}",
            )

    def _open(self, turn: Turn, _now: datetime, pick: Pick) -> None:
        assert pick.post is not None
        warnings: list[Finding] = []
        try:
            issue, opened = open_issue(
                self.engine,
                turn.newsletter,
                pick.post,
                turn.day,
                by=OpenedBy.SCHEDULER,
                tell=warnings.append,
            )
        except (PostError, AudienceHeld, RequestRefused) as error:
            self._hold(turn, str(error))
            return
        if not opened:
            return
        self._record(turn, Decision.OPENED, f"issue {issue.id}: {pick.post.slug}")
        if issue.state is IssueState.WAITING:
            self._ask_for_approval(turn, issue, warnings)
        else:
            write_audience(self.engine, issue)

    def _ask_for_approval(self, turn: Turn, issue: Issue, warnings: Sequence[Finding] = ()) -> None:
        found = "".join(f"{finding}\n" for finding in warnings)
        schedule = turn.newsletter.schedule
        by_itself = (
            f"Without an answer it goes out by itself in {schedule.approval_deadline}.\n"
            if schedule.approval == "auto-at-deadline"
            else ""
        )
        self.alerts.tell(
            f"approval:{issue.id}",
            f"{turn.newsletter.slug} {turn.day}: issue {issue.id} waits for your approval",
            f"{issue.title}\n\n{found}{by_itself}Look:     distributor preview {issue.slug}\n"
            f"Check:    distributor check {issue.slug}\nApprove:  distributor approve {issue.id}\n"
            f"Stop it:  distributor cancel {issue.id}",
        )

    def _wait_or_give_up(self, turn: Turn, now: datetime, _pick: Pick) -> None:
        slug, day, wait = turn.newsletter.slug, turn.day, turn.newsletter.schedule.wait_for_post
        if now <= turn.due + wait:
            self._record(turn, Decision.WAITING, "no post yet")
            if now >= turn.due + LATE_AFTER:
                self.alerts.tell(
                    f"late:{slug}:{day}",
                    f"{slug} {day}: the post is late",
                    f"There is no post of {day} in {self.folder(turn.newsletter)} yet. "
                    f"It is waited for until {_local(turn, turn.due + wait)}; put it there and it goes out by itself.",
                )
            return
        if self._record(turn, Decision.NO_POST, f"none by {_local(turn, turn.due + wait)}"):
            self.alerts.tell(
                f"no-post:{slug}:{day}",
                f"{slug} {day}: no post today, nothing was sent",
                f"No post of {day} was in {self.folder(turn.newsletter)} by {_local(turn, turn.due + wait)}.\n\n"
                f"To send one later today: distributor send --newsletter {slug}",
            )

    def _settle(self, turn: Turn, _now: datetime, pick: Pick) -> None:
        self._record(turn, Decision.WAITING, pick.detail)

    def _ask(self, turn: Turn, _now: datetime, pick: Pick) -> None:
        self._hold(turn, pick.detail)

    def _hold(self, turn: Turn, why: str) -> None:
        slug, day = turn.newsletter.slug, turn.day
        if self._record(turn, Decision.HELD, why):
            self.alerts.tell(
                f"held:{slug}:{day}:{hashlib.sha256(why.encode()).hexdigest()[:16]}",
                f"{slug} {day}: the issue is held, a person must look",
                f"{why}\n\nOnce it is mended the issue goes out by itself until {_local(turn, turn.due + turn.newsletter.schedule.grace)}; "
                f"or send it yourself: distributor send --newsletter {slug}",
            )

    def _record(self, turn: Turn, decision: Decision, detail: str) -> bool:
        return self.engine.ledger.record_tick(turn.newsletter.slug, turn.day, decision, detail)


TAKES: Mapping[Phase, Callable[[Scheduler, Turn, datetime], None]] = {
    Phase.AHEAD: Scheduler._ahead,  # noqa: SLF001 - the table of this very class
    Phase.DUE: Scheduler._due,  # noqa: SLF001 - as above
    Phase.MISSED: Scheduler._missed,  # noqa: SLF001 - as above
}
VERDICTS: Mapping[PickVerdict, Callable[[Scheduler, Turn, datetime, Pick], None]] = {
    PickVerdict.PICKED: Scheduler._open,  # noqa: SLF001 - as above
    PickVerdict.NONE: Scheduler._wait_or_give_up,  # noqa: SLF001 - as above
    PickVerdict.UNSETTLED: Scheduler._settle,  # noqa: SLF001 - as above
    PickVerdict.AMBIGUOUS: Scheduler._ask,  # noqa: SLF001 - as above
    PickVerdict.BROKEN: Scheduler._ask,  # noqa: SLF001 - as above
}


# ── what to tell when a sweep is over ────────────────────────────────────────────────────────────────────────────────


def look_after(engine: Engine, alerts: Alerts) -> Swept:
    """A sweep, and what it has to tell the operator."""
    swept = sweep(engine)
    tell_ended(engine, alerts)
    for trouble in swept.troubles:
        alerts.tell(
            f"trouble:{hashlib.sha256(trouble.encode()).hexdigest()[:16]}", trouble.split("\n")[0], trouble
        )
    _tell_doubts(engine, alerts)
    for channel, stop in engine.ledger.stopped_channels().items():
        alerts.tell(
            f"stopped:{channel}:{stop.stopped_at.isoformat()}",
            f"the channel {channel} is stopped",
            f"{stop.reason}\n\nNo recipient has paid for it with a try. The channel is tried again by itself "
            f"(next at {stop.until:%Y-%m-%d %H:%M:%S} UTC).\nLook: distributor doctor\nAt once: distributor resume {channel}",
        )
    alerts.send_due()
    return swept


def look_for_bounces(collect: Callable[[], object], alerts: Alerts) -> None:
    """A look into the bounce mailbox; told once a day when it cannot be read. Raises ServiceDown."""
    try:
        collect()
    except MailboxDown as error:
        log.warning("bounces_unread %s", error)
        alerts.tell(
            f"bounces:{datetime.now(UTC).date()}",
            "the bounce mailbox cannot be read",
            f"{error}\n\nMail is sent all the same, and bounces wait in the mailbox. Look: distributor doctor",
        )


def tell_ended(engine: Engine, alerts: Alerts) -> None:
    """The reports of what has ended lately and is not told yet: whoever ended it may have died before it told."""
    found = engine.ledger.ended_since(TOLD_WITHIN)
    again = engine.ledger.resends_by_persons([issue.id for issue in found])
    ended = {_end_key(issue, again.get(issue.id, 0)): issue for issue in found}
    told = alerts.notices.are_told(ended) if ended else set()
    for key, issue in ended.items():
        if key in told:
            continue
        if issue.state is IssueState.FINISHED:
            _tell_finished(engine, alerts, key, issue)
        else:
            _tell_expired(engine, alerts, key, issue)


def _end_key(issue: Issue, resends: int) -> str:
    """An issue that a person's resend reopened ends again, and is told again; not so for a reader's copy of it."""
    return f"{issue.state}:{issue.id}:{resends}"


def _tell_expired(engine: Engine, alerts: Alerts, key: str, issue: Issue) -> None:
    alerts.tell(
        key,
        f"{issue.newsletter} {issue.local_date}: issue {issue.id} expired before it was all sent",
        f"{issue.title}\n\n{report(engine, issue)}\n\nWhat was still pending is skipped: it would have been old news.\n"
        f"To send it to them all the same: distributor resend {issue.id} --only expired --reason …",
    )


def _tell_doubts(engine: Engine, alerts: Alerts) -> None:
    """A destination is a whole channel of readers: one that is in doubt is told at once, not with the report."""
    for entry in engine.ledger.doubtful_destinations():
        number = f"{entry.issue_id}.{entry.seq}"
        alerts.tell(
            f"doubt:{number}.{entry.resend}",
            f"{entry.channel} {entry.destination}: it may have gone, nobody knows",
            f"Issue {entry.issue_id} was handed over to {entry.destination} on {entry.channel}, and the answer was lost: "
            f"{entry.text}\n\nLook there, then say what you saw:\n  distributor resolve {number} --sent\n"
            f"  distributor resolve {number} --not-sent   and   "
            f"distributor resend {entry.issue_id} --only failed --reason …",
        )


def _tell_finished(engine: Engine, alerts: Alerts, key: str, issue: Issue) -> None:
    """The report at the end of a send; the dead-man ping when nothing went wrong."""
    total = sum(engine.ledger.tallies(issue.id).values(), Tally())
    awaiting = len(engine.ledger.awaiting(issue.id))
    doubtful = total.unconfirmed - awaiting
    lines = [issue.title, "", report(engine, issue), *_open_questions(engine, issue, total)]
    lines += _left_to_people(engine, issue)
    verdict = f"{doubtful} unconfirmed, please look" if doubtful else f"done, {total.sent} sent"
    verdict += f", {total.failed} failed" if total.failed else ""
    verdict += f", {awaiting} awaiting a person" if awaiting else ""
    # Before the notice, by which an issue counts as told: after a crash between the two it is told once more, as the same event.
    engine.ledger.webhooks.tell("issue.finished", key, issue.newsletter, _finished(issue, total))
    new = alerts.tell(key, f"{issue.newsletter} {issue.local_date}: {verdict}", "\n".join(lines))
    if new and total.balanced and not doubtful and (total.sent or awaiting or not total.failed):
        alerts.dead_man()


def _finished(issue: Issue, total: Tally) -> Mapping[str, object]:
    """What our webhooks say of an issue that is over."""
    counts = ("planned", "sent", "failed", "skipped", "unconfirmed")
    named = {
        "issue": issue.id,
        "date": issue.local_date.isoformat(),
        "slug": issue.slug,
        "title": issue.title,
    }
    return {**named, **{name: getattr(total, name) for name in counts}}


def _open_questions(engine: Engine, issue: Issue, total: Tally) -> Iterator[str]:
    """What a person may want to do about it."""
    awaiting = engine.ledger.awaiting(issue.id)
    if doubtful := total.unconfirmed - len(awaiting):
        yield ""
        yield f"{doubtful} unconfirmed: handed over, the answer was lost; they may have arrived. A person decides:"
        yield f"  who:       distributor log {issue.id} --state unconfirmed"
        yield f"  one:       distributor resolve {issue.id}.<number> --sent   (or --not-sent)"
        yield f"  all again: distributor resend {issue.id} --only unconfirmed --reason …"
    if awaiting:
        yield ""
        yield f"{len(awaiting)} awaiting a person, who has what to post:"
        for entry in awaiting:
            yield f"  {entry.destination}: distributor resolve {issue.id}.{entry.seq} --sent   (or --not-sent)"
    if total.failed:
        yield ""
        yield f"{total.failed} failed:"
        yield from _reasons(engine, issue)
        yield f"  again: distributor resend {issue.id} --only failed --reason …"


def _left_to_people(engine: Engine, issue: Issue) -> Iterator[str]:
    """What lies ready at the destinations of channels that end with a person, and where."""
    for channel in engine.ledger.tallies(issue.id):
        if getattr(engine.channels.get(channel), "ends_with_a_person", False):
            yield ""
            for entry in engine.ledger.log(issue.id, states=[DeliveryState.SENT], channel=channel):
                yield f"{channel} {entry.destination}: {entry.text}"


def report(engine: Engine, issue: Issue) -> str:
    """The numbers of an issue by channel, as text."""
    rows = [f"{'':<10} planned     sent   failed  skipped  unconfirmed  open"]
    awaiting = Counter(entry.channel for entry in engine.ledger.awaiting(issue.id))
    for channel, tally in engine.ledger.tallies(issue.id).items():
        rows.append(
            f"{channel:<10} {tally.planned:>7}  {tally.sent:>7}  {tally.failed:>7}  {tally.skipped:>7}  "
            f"{tally.unconfirmed:>11}  {tally.open:>4}"
            + (f"   {awaiting[channel]} of them awaiting a person" if awaiting[channel] else "")
            + ("" if tally.balanced else "   THE SUM DOES NOT HOLD")
        )
    heard = engine.ledger.heard(issue.id)
    if heard:
        rows.append("heard of them: " + ", ".join(f"{number} {kind}" for kind, number in heard.items()))
    return "\n".join(rows)


def _reasons(engine: Engine, issue: Issue) -> Iterator[str]:
    for channel, why, number in engine.ledger.why(issue.id, DeliveryState.FAILED)[:5]:
        yield f"  {number} × {channel}: {why}"


def _clock(turn: Turn) -> str:
    return _local(turn, turn.due)


def _local(turn: Turn, moment: datetime) -> str:
    return f"{moment.astimezone(turn.newsletter.zone):%H:%M} {turn.newsletter.timezone}"
