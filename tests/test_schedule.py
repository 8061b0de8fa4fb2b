"""The scheduler: when, what it decides, and what it tells. Real SQLite; the clock is the test's."""

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any, NoReturn

import pytest
from services import Project

from distributor.audience import NewSubscriber
from distributor.bootstrap import Distributor, build, prepare
from distributor.channels.email import EmailChannel
from distributor.dispatch import drain
from distributor.errors import ServiceDown
from distributor.model import IssueState, OpenedBy
from distributor.rehearsal import into_sandbox
from distributor.sandbox.server import Sandbox
from distributor.schedule import (
    Decision,
    Phase,
    Scheduler,
    due_time,
    look_after,
    next_due,
    phase_of,
    turns,
)
from distributor.settings import Newsletter

DAY = date(2026, 3, 5)  # a Thursday
#: 07:30 in Shanghai.
DUE = datetime(2026, 3, 4, 23, 30, tzinfo=UTC)
POST = "---\ntitle: 今天的三件事\ndate: {day}\n---\n\n第一件：小模型也能在家里跑。\n"


def utc(year: int, month: int, day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


def text_of(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


class Clock:
    """The time of the database and of the ticks."""

    def __init__(self) -> None:
        self.now = DUE - timedelta(days=3)  # so that whoever subscribes now is a reader of every issue

    def __call__(self) -> datetime:
        return self.now


class Stage:
    """A distributor on the sandbox, its clock, and shorthands for what the operator was told."""

    def __init__(self, project: Project, distributor: Distributor, clock: Clock, sandbox: Sandbox) -> None:
        self.project, self.distributor, self.clock, self.sandbox = project, distributor, clock, sandbox
        self.wrong: list[str] = []
        self.checks = 0
        self.distributor.scheduler.check = self._check

    def _check(self) -> Sequence[str]:
        self.checks += 1
        return self.wrong

    def tick(self, after: float = 0) -> None:
        """A tick `after` minutes after the send time; the database's clock is moved there too."""
        self.clock.now = DUE + minutes(after)
        self.distributor.scheduler.tick(self.clock.now)

    def write_post(self, name: str = "today", text: str = POST, *, day: date = DAY) -> Path:
        """A post that was written an hour before the send time."""
        path = self.project.write_post(name, text.replace("{day}", str(day)))
        old = (DUE - minutes(60)).timestamp()
        os.utime(path, (old, old))
        return path

    @property
    def told(self) -> list[str]:
        """Subjects of the notices, the oldest first, without the newsletter and the day."""
        found = [notice.subject for notice in self.distributor.notices.listing(50)]
        return [subject.removeprefix(f"ai-daily {DAY}: ") for subject in reversed(found)]

    @property
    def body(self) -> str:
        """What the newest notice says."""
        return self.distributor.notices.listing(1)[0].body

    @property
    def decided(self) -> list[str]:
        found = self.distributor.ledger.ticks("ai-daily", limit=50)
        return [row["decision"] for row in reversed(found) if row["decision"] != Decision.WATCHING]

    @property
    def state(self) -> IssueState | None:
        issue = self.distributor.ledger.issue_of("ai-daily", DAY)
        return issue.state if issue else None


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(None) as sandbox:
        yield sandbox


@pytest.fixture
def make_stage(project: Project, sandbox: Sandbox, tmp_path: Path) -> Iterator[Any]:
    made: list[Distributor] = []

    def make(readers: int = 2, **newsletter: Any) -> Stage:
        settings = project.settings(
            newsletter=newsletter,
            operator={"routes": [{"kind": "email", "to": "editor@example.com"}]},
        )
        clock = Clock()
        distributor = build(into_sandbox(settings, sandbox, tmp_path / "stage.sqlite3"), clock=clock)
        made.append(distributor)
        prepare(distributor)
        for number in range(readers):
            new = NewSubscriber(channel="email", address=f"reader-{number}@readers.example", source="test")
            distributor.audience.add("ai-daily", new)
        return Stage(project, distributor, clock, sandbox)

    yield make
    for distributor in made:
        distributor.close()


@pytest.fixture
def stage(make_stage: Any) -> Stage:
    made: Stage = make_stage()
    return made


def newsletter_with(project: Project, timezone: str = "Asia/Shanghai", **schedule: Any) -> Newsletter:
    settings = project.settings(newsletter={"timezone": timezone, "schedule": schedule})
    return settings.newsletters["ai-daily"]


class TestDueTime:
    @pytest.mark.parametrize(
        ("zone", "at", "day", "due"),
        [
            ("Asia/Shanghai", "07:30", date(2026, 3, 5), utc(2026, 3, 4, 23, 30)),
            ("Europe/Berlin", "07:30", date(2027, 3, 27), utc(2027, 3, 27, 6, 30)),
            ("Europe/Berlin", "07:30", date(2027, 3, 28), utc(2027, 3, 28, 5, 30)),
            # 02:30 does not exist on that day: the clocks show 03:30 when it would have been.
            ("Europe/Berlin", "02:30", date(2027, 3, 28), utc(2027, 3, 28, 1, 30)),
            # 02:30 comes twice: the first one counts.
            ("Europe/Berlin", "02:30", date(2026, 10, 25), utc(2026, 10, 25, 0, 30)),
            ("Europe/Berlin", "07:30", date(2026, 10, 25), utc(2026, 10, 25, 6, 30)),
            ("America/New_York", "01:30", date(2026, 11, 1), utc(2026, 11, 1, 5, 30)),
            ("America/New_York", "07:30", date(2026, 11, 1), utc(2026, 11, 1, 12, 30)),
        ],
    )
    def test_of_a_local_time(self, project: Project, zone: str, at: str, day: date, due: datetime) -> None:
        newsletter = newsletter_with(project, zone, time=time.fromisoformat(at))
        assert due_time(newsletter, day) == due

    @pytest.mark.parametrize(
        ("zone", "day"),
        [
            ("Europe/Berlin", date(2027, 3, 28)),
            ("Europe/Berlin", date(2026, 10, 25)),
            ("America/New_York", date(2026, 11, 1)),
        ],
    )
    def test_a_day_with_a_changed_clock_is_due_once(self, project: Project, zone: str, day: date) -> None:
        newsletter = newsletter_with(project, zone, time=time(2, 30), grace="0s")
        start = datetime.combine(day, time(), tzinfo=newsletter.zone).astimezone(UTC)
        due = [
            turn.day
            for minute in range(25 * 60)
            for turn in turns(newsletter, start + minutes(minute))
            if turn.phase is Phase.DUE
        ]
        assert due == [day]

    def test_jitter_is_stable_and_within_bounds(self, project: Project) -> None:
        plain = newsletter_with(project)
        jittered = newsletter_with(project, jitter="10m")
        days = [DAY + timedelta(days=number) for number in range(60)]
        late = [due_time(jittered, day) - due_time(plain, day) for day in days]
        assert all(timedelta(0) <= wait <= minutes(10) for wait in late)
        assert late == [due_time(jittered, day) - due_time(plain, day) for day in days]
        assert len(set(late)) > 50
        assert due_time(jittered.model_copy(update={"slug": "weekly"}), DAY) != due_time(jittered, DAY)


class TestDays:
    def test_skip_wins_over_extra_and_extra_over_days(self, project: Project) -> None:
        saturday, sunday, monday = date(2026, 10, 10), date(2026, 10, 11), date(2026, 10, 12)
        newsletter = newsletter_with(project, days=["mon"], extra=[saturday, sunday], skip=[sunday])
        sends = [day for day in (saturday, sunday, monday) if newsletter.schedule.sends_on(day)]
        assert sends == [saturday, monday]
        noon = datetime(2026, 10, 10, 12, tzinfo=UTC)  # Saturday's issue has gone
        assert next_due(newsletter, noon) == due_time(newsletter, monday)

    def test_a_schedule_without_days_is_never_due(self, project: Project) -> None:
        assert next_due(newsletter_with(project, days=[]), DUE) is None

    @pytest.mark.parametrize(
        ("after", "phase"),
        [
            (-31, None),
            (-30, Phase.AHEAD),
            (-0.1, Phase.AHEAD),
            (0, Phase.DUE),
            (120, Phase.DUE),
            (120.1, Phase.MISSED),
            (120 + 24 * 60, Phase.MISSED),
            (121 + 24 * 60, None),
        ],
    )
    def test_phases_seen_from_the_send_time(self, after: float, phase: Phase | None) -> None:
        assert phase_of(DUE, DUE + minutes(after), timedelta(hours=2)) == phase

    @pytest.mark.parametrize(
        ("at", "now", "expected"),
        [
            # 00:10: its checks run on the evening before, when its date is still tomorrow's
            (
                "00:10",
                utc(2026, 3, 4, 23, 45),
                [(date(2026, 3, 4), Phase.MISSED), (date(2026, 3, 5), Phase.AHEAD)],
            ),
            # 23:30: its grace reaches past midnight, when its date is yesterday's
            ("23:30", utc(2026, 3, 6, 1, 0), [(date(2026, 3, 5), Phase.DUE)]),
            ("23:30", utc(2026, 3, 6, 2, 0), [(date(2026, 3, 5), Phase.MISSED)]),
            (
                "23:30",
                utc(2026, 3, 6, 23, 10),
                [(date(2026, 3, 5), Phase.MISSED), (date(2026, 3, 6), Phase.AHEAD)],
            ),
        ],
    )
    def test_turns_around_midnight(
        self, project: Project, at: str, now: datetime, expected: list[tuple[date, Phase]]
    ) -> None:
        newsletter = newsletter_with(project, "UTC", time=time.fromisoformat(at))
        found = [(turn.day, turn.phase) for turn in turns(newsletter, now)]
        assert found == expected


class TestOpening:
    def test_today_s_post_goes_out_once_however_often_the_tick_comes(self, stage: Stage) -> None:
        stage.write_post()
        for after in (-1, 0, 0, 0.25, 5):
            stage.tick(after)
        assert stage.state is IssueState.SENDING
        drain(stage.distributor.engine, "email", seconds=20)
        stage.tick(6)
        look_after(stage.distributor.engine, stage.distributor.alerts)
        readers = {f"reader-{number}@readers.example": 1 for number in range(2)}
        assert stage.sandbox.inbox.addresses("email") == {**readers, "editor@example.com": 1}
        [issue] = stage.distributor.ledger.issues()
        assert (issue.opened_by, issue.state, issue.slug) == (
            OpenedBy.SCHEDULER,
            IssueState.FINISHED,
            "today",
        )
        assert stage.decided == [Decision.CHECKED, Decision.OPENED]

    def test_not_a_second_before_its_time(self, stage: Stage) -> None:
        stage.write_post()
        stage.tick(-1 / 60)
        assert stage.state is None

    def test_two_schedulers_at_once_open_one_issue_and_nobody_gets_two(self, stage: Stage) -> None:
        stage.write_post()
        stage.clock.now = DUE
        settings = stage.distributor.settings
        others = [build(settings, clock=stage.clock) for _ in range(2)]
        gate = threading.Barrier(2)
        failures: list[BaseException] = []

        def run(distributor: Distributor) -> None:
            try:
                gate.wait(10)
                distributor.scheduler.tick(DUE)
                drain(distributor.engine, "email", seconds=10)
            except BaseException as error:  # a thread's failure is the test's
                failures.append(error)

        threads = [threading.Thread(target=run, args=(other,)) for other in others]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for other in others:
            other.close()
        assert failures == []
        assert len(stage.distributor.ledger.issues()) == 1
        drain(stage.distributor.engine, "email", seconds=10)
        assert stage.sandbox.inbox.addresses("email") == {
            f"reader-{number}@readers.example": 1 for number in range(2)
        }

    def test_one_newsletter_s_trouble_does_not_stop_another_s_issue(self, stage: Stage) -> None:
        stage.write_post()
        engine = stage.distributor.engine
        ai_daily = engine.newsletters["ai-daily"]
        broken = ai_daily.model_copy(update={"slug": "a-broken-one"})

        def folder(newsletter: Newsletter) -> Path:
            if newsletter.slug == broken.slug:
                raise KeyError("a bug")
            return stage.distributor.settings.path(newsletter.posts)

        both = replace(engine, newsletters={"a-broken-one": broken, "ai-daily": ai_daily})
        scheduler = Scheduler(both, stage.distributor.alerts, folder, check=list, forget=lambda: None)
        stage.clock.now = DUE
        scheduler.tick(DUE)
        assert stage.state is IssueState.SENDING
        assert stage.told == [f"a-broken-one {DAY}: the issue is held, a person must look"]

    def test_a_bug_in_a_renderer_holds_the_post_by_name(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def render(*_: object) -> NoReturn:
            raise RecursionError("too deep")

        monkeypatch.setattr(EmailChannel, "render", render)
        path = stage.write_post()
        stage.tick()
        stage.tick(after=1)
        assert stage.told == ["the issue is held, a person must look"]
        assert stage.body.startswith(
            f"{path}: error: refused: it cannot be shown on email (RecursionError: too deep)"
        )
        assert "could not do its work" not in stage.body

    def test_a_database_that_is_away_is_no_reason_to_hold_an_issue(self, stage: Stage) -> None:
        def away(_newsletter: Newsletter) -> Path:
            raise ServiceDown("the database does not answer")

        stage.clock.now = DUE
        alerts = stage.distributor.alerts
        with pytest.raises(ServiceDown):
            Scheduler(stage.distributor.engine, alerts, away, check=list, forget=lambda: None).tick(DUE)
        assert stage.told == []


class TestWaitingForThePost:
    def test_it_waits_tells_after_ten_minutes_and_sends_when_it_comes(self, stage: Stage) -> None:
        stage.tick(0)
        stage.tick(9.9)
        assert (stage.decided, stage.told) == ([Decision.WAITING], [])
        stage.tick(10)
        stage.tick(11)
        assert stage.told == ["the post is late"]
        assert "waited for until 08:30 Asia/Shanghai" in stage.body
        stage.write_post()
        stage.tick(40)
        assert stage.state is IssueState.SENDING
        assert stage.told == ["the post is late"]

    def test_after_the_window_it_gives_up_and_says_so_once(self, stage: Stage) -> None:
        for after in (0, 60, 60.5, 90, 119, 125, 300):
            stage.tick(after)
        assert stage.told == ["the post is late", "no post today, nothing was sent"]
        assert "distributor send --newsletter ai-daily" in stage.body
        assert stage.decided == [Decision.WAITING, Decision.NO_POST]

    def test_both_reach_the_editor_s_inbox_with_what_to_do(self, stage: Stage) -> None:
        for after in (0, 10, 61):
            stage.tick(after)
            stage.distributor.alerts.send_due()
        entries = stage.sandbox.inbox.entries("email", "editor@example.com")
        late, none = [
            message_from_bytes(stage.sandbox.inbox.mail(entry.id), policy=default) for entry in entries
        ]
        assert late["Subject"] == f"[distributor] ai-daily {DAY}: the post is late"
        assert "put it there and it goes out by itself" in " ".join(text_of(late).split())
        assert none["Subject"] == f"[distributor] ai-daily {DAY}: no post today, nothing was sent"
        assert str(stage.project.root / "posts") in text_of(none)
        assert "distributor send --newsletter ai-daily" in text_of(none)

    def test_a_post_of_another_day_is_not_sent(self, stage: Stage) -> None:
        stage.write_post(day=DAY - timedelta(days=1))
        stage.tick(1)
        assert stage.state is None

    def test_a_draft_is_not_sent(self, stage: Stage) -> None:
        stage.write_post(text=POST.replace("---\n\n", "draft: true\n---\n\n"))
        stage.tick(1)
        assert stage.state is None

    def test_a_file_that_is_being_written_is_left_alone_until_it_lies_still(self, stage: Stage) -> None:
        path = stage.write_post()
        just_now = (DUE - timedelta(seconds=5)).timestamp()
        os.utime(path, (just_now, just_now))
        stage.tick(0)
        assert (stage.state, stage.told) == (None, [])
        stage.tick(0.5)
        assert stage.state is IssueState.SENDING


class TestHeld:
    def hold(self, stage: Stage, reason: str) -> None:
        """Two ticks, one notice with the reason."""
        stage.tick(0)
        stage.tick(0.25)
        assert stage.state is None
        assert stage.told == ["the issue is held, a person must look"]
        assert reason in stage.body
        assert "goes out by itself until 09:30 Asia/Shanghai" in stage.body

    def goes_out_by_itself(self, stage: Stage) -> None:
        stage.tick(30)
        assert stage.state is IssueState.SENDING
        assert stage.told == ["the issue is held, a person must look"]

    def test_two_posts_of_one_day(self, stage: Stage) -> None:
        stage.write_post()
        other = stage.write_post("other", POST.replace("第一件", "另一件"))
        self.hold(stage, "other.md")
        other.unlink()
        self.goes_out_by_itself(stage)

    def test_a_broken_post(self, stage: Stage) -> None:
        path = stage.write_post(text="---\ntitle: [\ndate: {day}\n---\n\nx\n")
        self.hold(stage, f"{path.name}:")
        stage.write_post()
        self.goes_out_by_itself(stage)

    def test_a_post_that_cannot_be_sent_well(self, stage: Stage) -> None:
        path = stage.write_post(text=POST + "\n[nowhere](ftp://example.com/x)\n\n![](missing-picture.png)\n")
        self.hold(stage, f"{path}:")
        assert f"{path}:8: error: link-nowhere: a link to nowhere: 'ftp://example.com/x'" in stage.body
        assert (
            f"\n{path}:10: error: picture-nowhere: a picture to nowhere: 'missing-picture.png'" in stage.body
        )
        stage.write_post()
        self.goes_out_by_itself(stage)

    def test_another_mistake_is_another_notice(self, stage: Stage) -> None:
        stage.write_post(text="---\ntitle: [\ndate: {day}\n---\n\nx\n")
        stage.tick(0)
        stage.write_post(text="---\ntitle: x\ndate: {day}\ndraft: perhaps\n---\n\nx\n")
        stage.tick(1)
        assert stage.told == ["the issue is held, a person must look"] * 2

    def test_nobody_to_send_to(self, make_stage: Any) -> None:
        stage: Stage = make_stage(readers=0)
        stage.write_post()
        self.hold(stage, "only 0 recipients")
        new = NewSubscriber(channel="email", address="late@readers.example", source="test")
        stage.distributor.audience.add("ai-daily", new)
        self.goes_out_by_itself(stage)

    def test_far_fewer_readers_than_last_time(self, make_stage: Any) -> None:
        stage: Stage = make_stage(readers=10)
        stage.write_post("yesterday", day=DAY - timedelta(days=1))
        stage.tick(-24 * 60)
        drain(stage.distributor.engine, "email", seconds=10)
        look_after(stage.distributor.engine, stage.distributor.alerts)
        for subscription in stage.distributor.audience.listing("ai-daily", limit=4):
            stage.distributor.audience.unsubscribe(subscription.token, "left")
        stage.write_post()
        stage.tick(0)
        assert stage.state is None
        assert "email has 6 recipients, the last issue had 10" in stage.body

    def test_a_post_that_went_out_before(self, stage: Stage) -> None:
        """An edited post is the same post: its slug tells."""
        stage.write_post(day=DAY - timedelta(days=1))
        stage.tick(-24 * 60)
        stage.write_post(text=POST + "\n再说一句。\n")
        stage.tick(0)
        assert stage.state is None
        assert "the post 'today' already has issue 1" in stage.body


class TestMissed:
    def test_an_outage_over_the_whole_grace_is_told_once(self, stage: Stage) -> None:
        stage.tick(-24 * 60)
        stage.write_post()
        for after in (121, 122, 600):
            stage.tick(after)
        assert stage.state is None
        assert stage.told[-1:] == ["the issue was missed"]
        assert stage.told.count("the issue was missed") == 1
        assert f"distributor send --newsletter ai-daily --date {DAY}" in stage.body

    def test_an_outage_within_the_grace_is_made_good(self, stage: Stage) -> None:
        stage.write_post()
        stage.tick(119)
        assert stage.state is IssueState.SENDING

    def test_a_fresh_installation_has_missed_nothing(self, stage: Stage) -> None:
        stage.write_post()
        stage.tick(121)
        assert (stage.state, stage.told) == (None, [])


class TestChecksAhead:
    def test_what_is_wrong_is_told_half_an_hour_before_and_looked_for_once(self, stage: Stage) -> None:
        stage.wrong = ["email: 127.0.0.1:2525 does not answer (start it)"]
        for after in (-31, -30, -29.75, -15):
            stage.tick(after)
        assert stage.told == ["something will go wrong at 07:30 Asia/Shanghai"]
        assert stage.wrong[0] in stage.body
        assert "distributor doctor" in stage.body
        assert stage.checks == 1

    def test_a_post_that_would_be_held_is_told_as_well(self, stage: Stage) -> None:
        path = stage.write_post(text=POST + "\n（待补）\n")
        stage.tick(-30)
        assert stage.told == ["something will go wrong at 07:30 Asia/Shanghai"]
        assert f'{path}:8: error: placeholder: "（待补）" was left for later' in stage.body

    def test_and_a_file_that_cannot_be_read(self, stage: Stage) -> None:
        path = stage.write_post(text="---\ntitle: [\ndate: {day}\n---\n\nx\n")
        stage.tick(-30)
        assert f"{path}:" in stage.body

    def test_when_all_is_well_nothing_is_told(self, stage: Stage) -> None:
        stage.tick(-30)
        assert (stage.checks, stage.told) == (1, [])

    def test_the_real_doctor_finds_a_dead_relay(self, project: Project) -> None:
        settings = project.settings(
            email={"smtp": {"host": "127.0.0.1", "port": 1}}, operator={"routes": [{"kind": "webhook"}]}
        )
        clock = Clock()
        distributor = build(settings, clock=clock)
        prepare(distributor)
        clock.now = DUE - minutes(20)
        distributor.scheduler.tick(clock.now)
        [notice] = distributor.notices.listing(5)
        distributor.close()
        assert notice.subject.endswith("something will go wrong at 07:30 Asia/Shanghai")
        assert "127.0.0.1:1" in notice.body


class TestApproval:
    def test_required_it_waits_for_a_person(self, make_stage: Any) -> None:
        stage: Stage = make_stage(schedule={"approval": "required"})
        stage.write_post()
        stage.tick(0)
        stage.tick(1)
        assert stage.state is IssueState.WAITING
        assert stage.told == ["issue 1 waits for your approval"]
        assert "Approve:  distributor approve 1" in stage.body
        assert f"{stage.project.root}/posts/today.md:6: warning: words-few: " in stage.body
        assert "Check:    distributor check today" in stage.body
        assert "by itself" not in stage.body
        assert self.sent(stage, after=60) == 0
        assert stage.distributor.ledger.approve(1, "chen")
        assert self.sent(stage, after=61) == 2
        assert stage.distributor.ledger.issue(1).approved_by == "chen"

    def test_at_its_deadline_it_goes_by_itself(self, make_stage: Any) -> None:
        stage: Stage = make_stage(schedule={"approval": "auto-at-deadline", "approval_deadline": "30m"})
        stage.write_post()
        stage.tick(0)
        assert "goes out by itself in 0:30:00" in stage.body
        assert self.sent(stage, after=29) == 0
        assert self.sent(stage, after=30) == 2
        assert stage.distributor.ledger.issue(1).approved_by == "deadline"

    def test_nobody_approves_and_it_expires_with_a_notice(self, make_stage: Any) -> None:
        stage: Stage = make_stage(schedule={"approval": "required", "expires": "3h"})
        stage.write_post()
        stage.tick(0)
        assert self.sent(stage, after=181) == 0
        assert stage.state is IssueState.EXPIRED
        assert stage.told[-1] == "issue 1 expired before it was all sent"

    def sent(self, stage: Stage, *, after: float) -> int:
        """How many readers have it after a sweep and a drain at that time."""
        stage.clock.now = DUE + minutes(after)
        look_after(stage.distributor.engine, stage.distributor.alerts)
        drain(stage.distributor.engine, "email", seconds=10)
        found = stage.sandbox.inbox.addresses("email")
        return sum(number for address, number in found.items() if address.startswith("reader-"))
