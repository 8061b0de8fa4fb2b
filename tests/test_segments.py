"""Segments: the filter language, who a filter means, and an issue for some readers, on both databases."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from fakes import BOTH, DAY, FakeChannel, World, make_newsletter, make_post, make_world, migrated_database
from services import Project
from sqlalchemy import Text, cast, func, insert, literal, select, text, update

from distributor.audience import Changes, Segment, active, of_issue
from distributor.db import Database
from distributor.dispatch import (
    AudienceHeld,
    guard_audience,
    open_issue,
    opening,
    plan_resend,
    resend,
    write_audience,
)
from distributor.errors import ConfigError, RequestRefused
from distributor.filters import LONGEST, FilterError, checked_filter, parse_filter
from distributor.ledger import ResendRequest
from distributor.model import Issue, IssueState, OpenedBy, ResendScope, SkipReason
from distributor.settings import load_settings
from distributor.tables import issue_segments, subscribers, subscription_tags, subscriptions


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as database:
        yield database


@pytest.fixture
def world(database: Database) -> World:
    return make_world(database)


def tag(world: World, name: str, *tags: str, remove: Sequence[str] = (), **attributes: str) -> None:
    changes = Changes(add=tags, remove=remove, attributes=attributes)
    world.audience.describe("daily", "email", world.address(name), changes)


def names(world: World, *filters: str, **options: Any) -> Sequence[str]:
    """The names of those who would get an issue, by these filters."""
    segment = Segment(filters, options.pop("language", "zh-CN"), options.pop("zone", UTC))
    with world.database.read() as connection:
        now = world.database.now(connection)
        query = active("daily", "email", now, segment=segment).order_by(subscribers.c.address)
        return [row.address.partition("@")[0] for row in connection.execute(query)]


def speaks(world: World, name: str, language: str | None) -> None:
    with world.database.write() as connection:
        where = subscribers.c.address == world.address(name)
        connection.execute(update(subscribers).where(where).values(language=language))


class TestTheLanguage:
    @pytest.mark.parametrize(
        "written",
        [
            "tag:beta",
            "  tag:beta  ",
            "tag:beta and lang:zh",
            "TAG:beta AND NOT (lang:zh OR domain:QQ.com)",
            'source:"webhook shop" or attr.city:北京',
            'tag:"a \\"quoted\\" \\\\ one"',
            "not not tag:a",
            "((tag:a))",
            "tag:a or tag:b and not tag:c",
            "since:2026-01-01",
            "tag:or",
            "tag:a:b",
        ],
    )
    def test_what_it_takes(self, written: str) -> None:
        assert checked_filter(written) == written.strip()

    def test_and_binds_before_or(self) -> None:
        assert parse_filter("tag:a or tag:b and tag:c") == parse_filter("tag:a or (tag:b and tag:c)")
        assert parse_filter("not tag:a and tag:b") == parse_filter("(not tag:a) and tag:b")

    def test_quotes_hold_blanks_and_parentheses(self) -> None:
        assert parse_filter('tag:"a (b) \\"c\\" \\\\"').value == 'a (b) "c" \\'  # type: ignore[union-attr]

    @pytest.mark.parametrize(
        ("written", "column", "says"),
        [
            ("", 1, "expected a condition such as tag:beta.*found the end"),
            ("tag:beta lang:zh", 10, r"expected `and`, `or` or the end; found lang…"),
            ("tag:beta and", 13, "expected a condition.*found the end"),
            ("and tag:beta", 1, "expected a condition.*found `and`"),
            ("(tag:beta", 10, r"expected `and`, `or` or `\)` for the `\(` of column 1; found the end"),
            ("tag:a and (tag:b or tag:c", 26, r"for the `\(` of column 11"),
            ("tag:beta)", 9, r"expected `and`, `or` or the end; found `\)`"),
            ("beta", 1, "expected a condition.*found 'beta'"),
            ("tags:beta", 1, "'tags' is not known; expected a condition such as tag:beta"),
            ("attr.:x", 1, "'attr.' is not known"),
            ("tag: beta", 1, "expected a value directly behind the colon of 'tag:'"),
            ('tag:""', 5, "expected a value behind the colon"),
            ('tag:"beta', 1, "expected a quote at the end"),
            ('tag:"be"ta', 1, "expected a quote at the end of the value, and a blank behind it"),
            ("since:yesterday", 7, "expected a day such as 2026-01-01; found 'yesterday'"),
            ("since:2026-13-01", 7, "expected a day"),
            ("since:0001-01-01", 7, "expected a day"),
            ("since:9999-12-31", 7, "expected a day"),
            ("tag:\udcff", 5, "a control character"),
            ("tag：beta", 1, r"write the plain characters : \( \)"),
            ("tag:a and （tag:b）", 11, "write the plain characters"),
            ("tag:a\nor tag:b", 6, "a control character"),
            ("tag:a'; drop table subscribers; --", 9, "expected"),
            ("x" * (LONGEST + 1), LONGEST + 1, "longer than 1000 characters"),
            ("(" * 30 + "tag:a" + ")" * 30, 21, "more than 20 terms inside of each other"),
            ("not " * 30 + "tag:a", 81, "more than 20 terms inside of each other"),
            (" or ".join(["tag:a"] * 51), 451, "more than 50 conditions"),
        ],
    )
    def test_a_mistake_is_told_with_its_column(self, written: str, column: int, says: str) -> None:
        with pytest.raises(FilterError, match=says) as caught:
            parse_filter(written)
        assert caught.value.column == column

    def test_a_mistake_in_the_settings_is_told_with_file_and_line(self, project: Project) -> None:
        path = project.root / "config" / "newsletters" / "ai-daily.toml"
        path.write_text(path.read_text() + '\n[audience]\nfilter = "tag:beta lang:zh"\n')
        line = path.read_text().splitlines().index('filter = "tag:beta lang:zh"') + 1
        with pytest.raises(
            ConfigError, match=rf"ai-daily\.toml:{line}: audience\.filter: .*column 10: expected `and`"
        ):
            load_settings(project.root)


class TestWhoIsMeant:
    def test_tags_and_attributes(self, world: World) -> None:
        world.subscribe("ann", "bob", "cy")
        tag(world, "ann", "beta", "北京", city="北京")
        tag(world, "bob", "beta", city="Beijing")
        assert names(world, "tag:beta") == ["ann", "bob"]
        assert names(world, "tag:beta and not attr.city:北京") == ["bob"]
        assert names(world, "not tag:beta") == ["cy"]
        assert names(world, "tag:北京 or not tag:beta") == ["ann", "cy"]
        assert names(world, "tag:BETA") == ["ann", "bob"]
        assert names(world, "tag:bet") == []
        assert names(world, "tag:beta", "attr.city:Beijing") == ["bob"]

    def test_languages_with_and_without_a_region(self, world: World) -> None:
        world.subscribe("ann", "bob", "cy", "dan", "eve")
        for name, language in {"ann": "zh", "bob": "zh-CN", "cy": "en", "dan": None, "eve": "zhx"}.items():
            speaks(world, name, language)
        assert names(world, "lang:zh") == ["ann", "bob", "dan"]
        assert names(world, "lang:ZH-cn") == ["bob", "dan"]
        assert names(world, "not lang:zh") == ["cy", "eve"]
        assert names(world, "lang:en", language="en") == ["cy", "dan"]
        assert names(world, "lang:z%") == names(world, "lang:z_") == []

    def test_source_domain_and_day(self, world: World) -> None:
        world.subscribe("ann", "bob@qq.com")
        world.clock.forward(timedelta(days=40))
        world.subscribe("cy@mail.qq.com")
        day = (datetime.now(UTC) + timedelta(days=20)).date()
        assert names(world, "domain:QQ.com") == names(world, "domain:@qq.com") == ["bob"]
        assert names(world, f"since:{day}") == ["cy"]
        assert names(world, f"not since:{day}") == ["ann", "bob"]
        assert names(world, "source:test") == ["ann", "bob", "cy"]
        assert names(world, "source:form") == []

    def test_a_day_begins_in_the_newsletters_zone(self, world: World) -> None:
        world.subscribe("ann")
        with world.database.write() as connection:
            at = datetime(2026, 1, 31, 17, 0, tzinfo=UTC)  # 1 February, 01:00 in Shanghai
            connection.execute(update(subscriptions).values(activated_at=at))
        assert names(world, "since:2026-02-01") == []
        assert names(world, "since:2026-02-01", zone=ZoneInfo("Asia/Shanghai")) == ["ann"]

    def test_nothing_typed_is_part_of_a_statement(self, world: World) -> None:
        world.subscribe("ann")
        assert names(world, 'tag:"x\' OR 1=1 --"') == []
        assert names(world, "attr.x';--:1 or domain:\"' or ''='\"") == []

    def test_a_listing_and_a_count(self, world: World) -> None:
        world.subscribe("ann", "bob")
        world.subscribe("7", channel="telegram")
        tag(world, "bob", "beta")
        segment = Segment(("tag:beta",))
        assert [item.address for item in world.audience.listing("daily", segment=segment)] == [
            world.address("bob")
        ]
        assert world.audience.count("daily", "email", segment) == 1
        assert world.audience.count("daily", "telegram", segment) == 0


class TestDescribing:
    def test_changes_and_what_there_is_then(self, world: World) -> None:
        world.subscribe("ann")
        tag(world, "ann", "b", "a", "a", city="北京", plan="free")
        tag(world, "ann", "c", remove=["a", "never"], plan="", city="上海")
        found = world.audience.describe("daily", "email", " ANN@readers.example ", Changes())
        assert (found.tags, found.attributes) == (["b", "c"], {"city": "上海"})

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            (Changes(add=[" "]), "cannot be a tag"),
            (Changes(add=["x" * 101]), "cannot be a tag: one to 100 characters"),
            (Changes(add=["a\nb"]), "control characters"),
            (Changes(add=["a,b"]), "cannot be a tag: where several"),
            (Changes(attributes={"a b": "c"}), "cannot name an attribute"),
            (Changes(attributes={"a": "x" * 501}), "cannot be a value"),
        ],
    )
    def test_what_cannot_be_one_is_refused_and_nothing_changes(
        self, world: World, changes: Changes, says: str
    ) -> None:
        world.subscribe("ann")
        tag(world, "ann", "kept")
        with pytest.raises(RequestRefused, match=says):
            world.audience.describe("daily", "email", world.address("ann"), changes)
        assert names(world, "tag:kept") == ["ann"]

    def test_a_stranger_is_told(self, world: World) -> None:
        with pytest.raises(
            RequestRefused, match=r"zoe@readers\.example has no subscription to daily by email"
        ):
            tag(world, "zoe", "beta")


def beta_world(database: Database, *, readers: int = 7, **tables: Any) -> World:
    """Readers r0, r1 …; those with an even number are tagged "beta"."""
    world = make_world(database, newsletter=make_newsletter(**tables))
    world.subscribe(*(f"r{number}" for number in range(readers)))
    for number in range(0, readers, 2):
        tag(world, f"r{number}", "beta")
    return world


def segment_rows(world: World) -> int:
    with world.database.read() as connection:
        return connection.execute(select(func.count()).select_from(issue_segments)).scalar_one()


BETA: Mapping[str, Any] = {"audience": {"filter": "tag:beta"}}
EVEN = ["r0", "r2", "r4", "r6"]


class TestAnIssueForSome:
    def test_the_newsletters_filter_holds_for_every_issue(self, database: Database) -> None:
        world = beta_world(database, **BETA)
        issue = world.open()
        world.drain()
        assert sorted(world.states(issue)) == EVEN
        assert world.check_sum(issue).planned == 4
        assert segment_rows(world) == 0

    def test_a_channels_own_filter_narrows_it(self, database: Database) -> None:
        channels = {"email": {"filter": "not tag:beta"}, "telegram": {}}
        newsletter = make_newsletter(channels)
        world = make_world(
            database, channels=(FakeChannel("email"), FakeChannel("telegram")), newsletter=newsletter
        )
        world.subscribe("ann", "bob")
        world.subscribe("7", channel="telegram")
        tag(world, "ann", "beta")
        issue = world.open()
        assert sorted(world.states(issue)) == ["7", "bob"]
        assert world.ledger.filters(issue.id) == {"email": ["not tag:beta"]}

    def test_a_sends_own_filter_narrows_it_too(self, database: Database) -> None:
        world = beta_world(database, **BETA)
        tag(world, "r4", "vip")
        issue = world.open(extra=True, filter_text="tag:vip")
        assert sorted(world.states(issue)) == ["r4"]

    def test_tags_that_change_between_windows_change_nothing(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever writes the windows reads who was meant when the issue was frozen, though all tags turn around."""
        world = beta_world(database, **BETA)
        monkeypatch.setattr(opening, "FIRST_WINDOW", 1)
        monkeypatch.setattr(opening, "WINDOW", 1)
        write, windows = world.ledger.write_window, []

        def turning(*arguments: Any, **options: Any) -> int:
            written = write(*arguments, **options)
            windows.append(written)
            for number in range(7):
                turned = Changes(add=["beta"]) if number % 2 else Changes(remove=["beta"])
                world.audience.describe("daily", "email", world.address(f"r{number}"), turned)
            return written

        monkeypatch.setattr(world.ledger, "write_window", turning)
        issue = world.open()
        assert windows == [1, 1, 1, 1, 0]
        assert names(world, "tag:beta") == ["r1", "r3", "r5"]
        assert sorted(world.states(issue)) == EVEN
        world.drain()
        assert world.check_sum(issue).sent == 4

    def test_who_leaves_while_it_is_written_is_skipped_and_counted(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = beta_world(database, **BETA)
        monkeypatch.setattr(opening, "FIRST_WINDOW", 1)
        write = world.ledger.write_window

        def leaving(*arguments: Any, **options: Any) -> int:
            written = write(*arguments, **options)
            world.leave("r6")
            return written

        monkeypatch.setattr(world.ledger, "write_window", leaving)
        issue = world.open()
        world.drain()
        assert world.states(issue)["r6"] == "skipped(unsubscribed)"
        total = world.check_sum(issue)
        assert (total.planned, total.sent, total.skipped) == (4, 3, 1)

    def test_a_crash_after_the_freeze_goes_on_with_those_who_were_meant(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = beta_world(database, **BETA)
        issue, _ = open_issue(world.engine, world.newsletter, make_post(), DAY, by=OpenedBy.PERSON)

        def dies(*_arguments: Any, **_options: Any) -> int:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(world.ledger, "write_window", dies)
            with pytest.raises(KeyboardInterrupt):
                write_audience(world.engine, issue)
        assert segment_rows(world) == 4
        tag(world, "r1", "beta")
        tag(world, "r0", remove=["beta"])
        world.clock.forward(timedelta(minutes=5))
        assert write_audience(world.engine, issue)
        assert sorted(world.states(issue)) == EVEN
        assert world.check_sum(issue).planned == 4
        assert segment_rows(world) == 0

    def test_a_cancelled_one_leaves_no_names_behind(self, database: Database) -> None:
        world = beta_world(database, **BETA)
        issue, _ = open_issue(world.engine, world.newsletter, make_post(), DAY, by=OpenedBy.PERSON)
        world.ledger.freeze(issue.id, lambda now: [active("daily", "email", now)])
        assert segment_rows(world) == 7
        world.ledger.stop_issue(issue.id, IssueState.CANCELLED, SkipReason.CANCELLED)
        assert segment_rows(world) == 0
        assert world.check_sum(issue).planned == 0

    def test_the_filter_of_the_opening_counts_whatever_the_settings_say_later(
        self, database: Database
    ) -> None:
        world = beta_world(database, **BETA)
        issue, _ = open_issue(world.engine, world.newsletter, make_post(), DAY, by=OpenedBy.PERSON)
        world.engine.newsletters[world.newsletter.slug] = make_newsletter()  # type: ignore[index]
        assert write_audience(world.engine, issue)
        assert sorted(world.states(issue)) == EVEN

    def test_missing_are_those_whom_its_filter_means_now(self, database: Database) -> None:
        world = beta_world(database, **BETA)
        issue = world.open()
        world.drain()
        world.subscribe("new", "other")
        tag(world, "new", "beta")
        tag(world, "r1", "beta")
        asked = ResendRequest(scope=ResendScope.MISSING, reason="they were late", by="test")
        assert plan_resend(world.engine, issue.id, asked).by_channel == {"email": 2}
        assert resend(world.engine, issue.id, asked) == 2
        world.drain()
        assert sorted(world.states(issue)) == ["new", "r0", "r1", "r2", "r4", "r6"]
        assert world.check_sum(issue).sent == 6

    def test_a_small_issue_for_some_does_not_alarm_the_next_nor_the_other_way_round(
        self, database: Database
    ) -> None:
        world = beta_world(database, readers=8)
        world.open()
        tag(world, "r0", "vip")
        world.open(slug="second", extra=True, filter_text="tag:vip")
        guard_audience(world.engine, world.newsletter)
        guard_audience(world.engine, world.newsletter, "tag:beta")
        with pytest.raises(AudienceHeld, match="only 0 recipients"):
            guard_audience(world.engine, world.newsletter, "tag:nobody")
        world.open(slug="third", extra=True, filter_text="tag:beta")
        for name in ("r2", "r4", "r6"):
            tag(world, name, remove=["beta"])
        with pytest.raises(AudienceHeld, match="1 recipients, the last issue had 4"):
            guard_audience(world.engine, world.newsletter, "tag:beta")


def crowd(world: World, readers: int) -> Issue:
    """So many readers, every other one tagged; an issue that is frozen for the tagged ones."""
    numbers = text(
        "SELECT value FROM generate_series(1, :n) AS t(value)"
        if not world.database.sqlite
        else "WITH RECURSIVE t(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM t WHERE value < :n) SELECT value FROM t"
    ).columns(value=subscribers.c.id.type)
    of = numbers.bindparams(n=readers).subquery("n")
    now = datetime.now(UTC) - timedelta(hours=1)
    moment = literal(now, subscribers.c.created_at.type)
    number = of.c.value
    with world.database.write() as connection:
        columns = ("id", "channel", "address", "domain", "name", "created_at")
        address = literal("r").concat(cast(number, Text)).concat("@readers.example")
        connection.execute(
            insert(subscribers).from_select(
                columns,
                select(number, literal("email"), address, literal("readers.example"), literal(""), moment),
            )
        )
        of_subscription = (
            "id",
            "subscriber_id",
            "newsletter",
            "state",
            "token",
            "source",
            "consent_at",
            "activated_at",
        )
        row = (
            number,
            number,
            literal("daily"),
            literal("active"),
            literal("t").concat(cast(number, Text)),
            literal("crowd"),
        )
        connection.execute(insert(subscriptions).from_select(of_subscription, select(*row, moment, moment)))
        tagged = select(number, literal("beta")).where(number % 2 == 0)
        connection.execute(insert(subscription_tags).from_select(["subscription_id", "tag"], tagged))
        for table in (subscribers, subscriptions, subscription_tags):
            world.database.analyze_table(connection, table)
    issue, _ = open_issue(world.engine, world.newsletter, make_post(), DAY, by=OpenedBy.PERSON)
    return issue


class TestMany:
    def test_no_part_of_the_plan_looks_at_everybody_for_everybody(self, database: Database) -> None:
        """SQLite: each look-up goes by an index. PostgreSQL: the cost grows with the readers, not with their square."""
        few, many = self.costs(database, 500), self.costs(database, 4_000)
        assert all(large < 16 * small for small, large in zip(few, many, strict=True)), (few, many)

    def costs(self, database: Database, readers: int) -> Sequence[float]:
        """Of naming those who are meant, and of one window of them."""
        world = make_world(database, newsletter=make_newsletter(audience={"filter": "tag:beta or lang:en"}))
        issue = crowd(world, readers)
        segment = Segment(("tag:beta or not attr.city:x",))
        with database.read() as connection:
            now = database.now(connection)
            named = active("daily", "email", now, segment=segment)
        world.ledger.freeze(issue.id, lambda _now: [named])
        window = of_issue(active("daily", "email", now), issue.id).order_by(subscribers.c.id).limit(100)
        return [self.cost(database, named), self.cost(database, window)]

    def cost(self, database: Database, query: Any) -> float:
        compiled = query.compile(database.engine, compile_kwargs={"literal_binds": True})
        with database.read() as connection:
            if database.sqlite:
                plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}")]
                scans = [line for line in plan if line.startswith("SCAN")]
                assert not scans, plan
                return 1.0
            (line,) = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {compiled}").scalars()
            return float(line[0]["Plan"]["Total Cost"])
