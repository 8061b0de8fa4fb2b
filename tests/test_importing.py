"""Readers from a CSV: what is read, what is refused, who comes in and who does not, and out again."""

import codecs
import zipfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from email_validator import EmailNotValidError, validate_email
from fakes import BOTH, World, make_world, migrated_database
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, update

from distributor.audience import (
    Export,
    Given,
    ImportOrder,
    ImportReport,
    Line,
    Refusal,
    Standing,
    Verdict,
    fingerprint,
    normalise,
    write_csv,
)
from distributor.audience.importing import Reading, sheets_of, understand, windows
from distributor.audience.importing.ahead import ahead
from distributor.db import Database
from distributor.errors import RequestRefused
from distributor.model import SubscriptionState, SuppressionReason
from distributor.tables import (
    consents,
    events,
    imports,
    subscribers,
    subscription_attributes,
    subscription_tags,
    subscriptions,
    suppressions,
)

CONSENT = Reading(consent="the old list")


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as database:
        yield database


@pytest.fixture
def world(database: Database) -> World:
    return make_world(database)


def written(folder: Path, text: str | bytes, name: str = "readers.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def lines_of(
    folder: Path, text: str | bytes, reading: Reading = CONSENT, encoding: str | None = None, says: str = ""
) -> list[Line | Refusal]:
    (source,) = understand("csv", [(says, sheets_of(written(folder, text), encoding))], reading)
    return list(source.lines())


def addresses(found: Sequence[Line | Refusal]) -> list[str]:
    return [one.address if isinstance(one, Line) else f"line {one.number}: {one.problem}" for one in found]


def bring(world: World, *lines: Line, **order: Any) -> ImportReport:
    return world.audience.import_lines(ImportOrder(newsletter="daily", **order), [Given(lines)])


def line(who: str, **values: Any) -> Line:
    """A reader at readers.example."""
    says = str(values.get("standing", "active"))
    return Line(**{"number": 2, "address": f"{who}@readers.example", "says": says, **values})


def rows(world: World, table: Any) -> Sequence[Any]:
    with world.database.read() as connection:
        return connection.execute(select(table)).all()


def states(world: World) -> dict[str, str]:
    found = world.audience.listing("daily", limit=1000)
    return {one.address.partition("@")[0]: one.suppressed or str(one.state) for one in found}


class TestReading:
    @pytest.mark.parametrize(
        ("data", "encoding"),
        [
            ("email,name\nli@readers.example,李\n".encode(), "utf-8"),
            ("email,name\nli@readers.example,李\n".encode("utf-8-sig"), "utf-8-sig"),
            ("email,name\nli@readers.example,李\n".encode("gb18030"), "gb18030"),
            ("email;name\r\nli@readers.example;李\r\n".encode("utf-16"), "utf-16"),
            (codecs.BOM_UTF16_BE + "email\tname\nli@readers.example\t李\n".encode("utf-16-be"), "utf-16"),
            ("sep=;\nemail;name\nli@readers.example;李\n".encode("gbk"), "gb18030"),
            ("\n\r\nemail,name\r\n\n,,\nli@readers.example,李".encode(), "utf-8"),
            ('"email","name"\n"li@readers.example","李"\n'.encode(), "utf-8"),
            ("EMAIL , Name\nli@readers.example,李\n".encode(), "utf-8"),
        ],
    )
    def test_encodings_and_delimiters(self, tmp_path: Path, data: bytes, encoding: str) -> None:
        (sheet,) = sheets_of(written(tmp_path, data))
        assert sheet.encoding == encoding
        (found,) = lines_of(tmp_path, data)
        assert isinstance(found, Line)
        assert (found.address, found.name) == ("li@readers.example", "李")

    def test_an_encoding_can_be_named(self, tmp_path: Path) -> None:
        data = "email,name\nzoe@readers.example,Zoë\n".encode("windows-1252")
        (found,) = lines_of(tmp_path, data, encoding="windows-1252")
        assert isinstance(found, Line)
        assert found.name == "Zoë"

    @pytest.mark.parametrize(
        ("data", "encoding", "said"),
        [
            (b"email\n\xff\xff\xff\x80\n", None, "neither UTF-8 nor GB18030"),
            (b"email\na@readers.example\n\xff\n", "utf-8", "is not utf-8 .*--encoding"),
            (b"email\n", "klingon", "no encoding 'klingon'"),
            (b"email\n", "base64", "no encoding 'base64'"),
            (b"", None, "is empty"),
            (b"name,mail\n", None, "it has: name, mail.*--map email="),
            (b"ann@readers.example,Ann\nbob@readers.example,Bob\n", None, "line 1 is no header but a reader"),
        ],
    )
    def test_files_that_cannot_be_used(
        self, tmp_path: Path, data: bytes, encoding: str | None, said: str
    ) -> None:
        with pytest.raises(RequestRefused, match=said):
            lines_of(tmp_path, data, encoding=encoding)

    @pytest.mark.parametrize(
        ("row", "tags"),
        [
            ('a@readers.example,"red\nblue"', ("red blue",)),
            ('a@readers.example,"red,\r\nblue"', ("red", "blue")),
            ("a@readers.example,red;blue", ("red", "blue")),
        ],
    )
    def test_tags_on_several_lines(self, tmp_path: Path, row: str, tags: Sequence[str]) -> None:
        (found,) = lines_of(tmp_path, f"email,tags\n{row}\n")
        assert isinstance(found, Line)
        assert found.tags == tags

    def test_an_address_that_was_guarded_comes_back(self, tmp_path: Path) -> None:
        data = "email,channel\n'+ann@readers.example,\n'-100123,telegram\no'neil@readers.example,\n"
        assert addresses(lines_of(tmp_path, data)) == [
            *("+ann@readers.example", "-100123", "o'neil@readers.example")
        ]

    def test_channels(self, tmp_path: Path) -> None:
        data = "email,channel\na@readers.example,Email \n4711,TELEGRAM\nb@readers.example,sms\n"
        good, chat, bad = lines_of(tmp_path, data)
        assert isinstance(good, Line)
        assert isinstance(chat, Line)
        assert (good.channel, chat.channel) == ("email", "telegram")
        assert isinstance(bad, Refusal)
        assert (bad.column, bad.problem) == ("channel", "is none of email, telegram")

    def test_who_left_is_not_refused_for_a_date(self, tmp_path: Path) -> None:
        data = (
            "email,status,consent_at,ended_at\n"
            "a@readers.example,unsubscribed,2020-01-01,last May\n"
            "b@readers.example,complained,,2024-05-01 10:00\n"
            "c@readers.example,active,2020-01-01,\n"
        )
        found = lines_of(tmp_path, data)
        assert addresses(found)[:2] == ["a@readers.example", "b@readers.example"]
        assert [one.ended_at for one in found if isinstance(one, Line)] == [None, None]
        assert isinstance(found[2], Refusal)
        assert found[2].column == "consent_at"

    def test_a_time_to_come_is_none(self, tmp_path: Path) -> None:
        data = "email,consent_at\na@readers.example,9999-12-31T23:59:59-10:00\n"
        (found,) = lines_of(tmp_path, data)
        assert isinstance(found, Line)
        assert found.consent_at is None
        assert addresses(lines_of(tmp_path, data, Reading())) == [
            "line 2: says nothing; give it, or say it of all with --consent"
        ]

    def test_a_scope_is_no_part_of_an_address_of_the_network(self, tmp_path: Path) -> None:
        (found,) = lines_of(tmp_path, "email,consent_ip\na@readers.example,fe80::1%\x00eth0\n")
        assert isinstance(found, Line)
        assert found.ip == "fe80::1"

    def test_a_zip_that_is_packed_in_another_way(self, tmp_path: Path) -> None:
        path = tmp_path / "readers.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("readers.csv", "email\na@readers.example\n")
        path.write_bytes(path.read_bytes().replace(b"\x08\x00", b"\x09\x00"))  # deflate64, as of Windows
        with pytest.raises(RequestRefused, match="packed in a way"):
            understand("csv", [("", sheets_of(path))], CONSENT)

    def test_what_is_not_there(self, tmp_path: Path) -> None:
        for path in (tmp_path / "gone.csv", tmp_path):
            with pytest.raises(RequestRefused, match="cannot be read"):
                understand("csv", [("", sheets_of(path))], CONSENT)

    def test_bad_lines_are_named_and_the_rest_goes_on(self, tmp_path: Path) -> None:
        text = (
            "email,name,consent_at\n"
            "ann@readers.example,Ann,2025-11-24T08:00:00+08:00\n"
            "not an address,Nobody,\n"
            "bob@readers.example,Bob,yesterday\n"
            "cy@readers.example,Cy,2025-11-24 08:00\n"
            ",Empty,\n"
            '"dora@readers.example","Do\nra",\n'
            "eve@readers.example\n"
            "fay@readers.example,F,,too,many\n"
            "nul\0@readers.example,N,\n"
            f"gus@readers.example,{'x' * 2000},\n"
        )
        found = lines_of(tmp_path, text)
        refused = [(one.number, one.column, one.problem) for one in found if isinstance(one, Refusal)]
        assert [number for number, _, _ in refused] == [3, 4, 5, 6, 10, 11, 12]
        said = " ".join(f"{column}: {problem}" for _, column, problem in refused)
        for part in (
            "is not a time",
            "names no zone",
            "is empty",
            "has 5 cells, the header 3",
            "longer than 1,000",
        ):
            assert part in said
        good = [one for one in found if isinstance(one, Line)]
        assert [one.address.partition("@")[0] for one in good] == ["ann", "dora", "eve"]
        assert [one.name for one in good] == ["Ann", "Do ra", ""]
        assert good[0].consent_at == datetime(2025, 11, 24, tzinfo=UTC)
        assert [one.number for one in good] == [2, 7, 9]

    def test_an_open_quote_costs_what_it_swallowed_and_says_so(self, tmp_path: Path) -> None:
        lost = "".join(f"r{number}@readers.example,x\n" for number in range(7000))
        found = lines_of(tmp_path, f'email,name\nann@readers.example,"Ann\n{lost}')
        assert isinstance(found[0], Refusal)
        assert "is a quote open?" in found[0].problem
        assert addresses(found[-1:]) == ["r6999@readers.example"]

    def test_columns_are_mapped_by_name(self, tmp_path: Path) -> None:
        text = "E-Mail,Voller Name,Plan\nann@readers.example,Ann,gold\n"
        mapping = {"email": "e-mail", "name": "Voller Name", "attr.plan": "Plan"}
        (found,) = lines_of(tmp_path, text, Reading(mapping, "the old list"))
        assert isinstance(found, Line)
        assert (found.name, found.attributes) == ("Ann", (("plan", "gold"),))
        for wrong, said in (({"email": "mail"}, "has no column 'mail'"), ({"phone": "Plan"}, "--map phone=")):
            with pytest.raises(RequestRefused, match=said):
                lines_of(tmp_path, text, Reading({**mapping, **wrong}, "the old list"))

    def test_tags_and_attributes(self, tmp_path: Path) -> None:
        text = 'email,tags,attr.city,attr.\nann@readers.example,"Beta; vip, beta",上海,x\n'
        (found,) = lines_of(tmp_path, text)
        assert isinstance(found, Line)
        assert (found.tags, found.attributes) == (("beta", "vip"), (("city", "上海"),))

    def test_consent_is_required_or_declared(self, tmp_path: Path) -> None:
        bare = Reading()
        with pytest.raises(RequestRefused, match=r"nobody says when these readers agreed.*--consent"):
            lines_of(tmp_path, "email\nann@readers.example\n", bare)
        text = (
            "email,consent_at,consent_source,consent_ip\n"
            "ann@readers.example,2024-05-01T08:00:00Z,form,192.0.2.7\n"
            "bob@readers.example,,form,::1\n"
        )
        first, second = lines_of(tmp_path, text, bare)
        assert isinstance(first, Line)
        assert (first.source, first.ip) == ("form", "192.0.2.7")
        assert isinstance(second, Refusal)
        assert (second.column, "--consent" in second.problem) == ("consent_at", True)
        declared = lines_of(tmp_path, text, CONSENT)[1]
        assert isinstance(declared, Line)
        assert (declared.source, declared.consent_at, declared.ip) == ("form", None, "::1")

    def test_standings_in_many_words(self, tmp_path: Path) -> None:
        text = "email,status\n" + "".join(
            f"r{number}@readers.example,{word}\n"
            for number, word in enumerate(
                ["", "Subscribed", "unsubscribed", "cleaned", "complaint", "manual", "pending", "?"]
            )
        )
        found = lines_of(tmp_path, text)
        assert [one.standing for one in found if isinstance(one, Line)] == [
            *(Standing.ACTIVE, Standing.ACTIVE, Standing.UNSUBSCRIBED, Standing.BOUNCED),
            *(Standing.COMPLAINED, Standing.BLOCKED, Standing.UNCONFIRMED),
        ]
        assert isinstance(found[-1], Refusal)
        assert {
            one.says for one in lines_of(tmp_path, "email\na@readers.example\n", Reading(), says="left")
        } == {"left"}
        with pytest.raises(RequestRefused, match="is none of"):
            lines_of(tmp_path, "email\n", says="gone")


ODD = st.text(st.characters(codec="utf-8"), max_size=12)
PLAIN = st.text("abcXYZ019.!#$%&'*+-/=?^_`{|}~\"<>(), @", max_size=12)
DOMAINS = st.sampled_from(
    ["readers.example", "Readers.Example", "a..example", "-a.example", "a-.example", "x.test", "localhost", "1.2.3.4",
     "xn--bcher-kva.example", "xn--a.example", "bücher.example", "example", "a.b-", "[1.2.3.4]", "sub.sub.example.com", ""]
)  # fmt: skip


class TestAddresses:
    @settings(max_examples=400, deadline=None)
    @given(st.one_of(PLAIN, ODD), st.one_of(DOMAINS, PLAIN, ODD))
    def test_the_short_way_has_the_librarys_verdicts(self, local: str, domain: str) -> None:
        address = f"{local}@{domain}"
        assert judged(address) == by_library(address)

    @pytest.mark.parametrize("local", [1, 63, 64, 65, 200, 237, 238, 239, 240, 300])
    @pytest.mark.parametrize(
        "domain", ["readers.example", f"{'a' * 60}.{'b' * 60}.example", "xn--bcher-kva.example"]
    )
    def test_also_of_long_ones(self, local: int, domain: str) -> None:
        address = f"{'x' * local}@{domain}"
        assert judged(address) == by_library(address)


def judged(address: str) -> str | None:
    try:
        return normalise("email", address)
    except RequestRefused:
        return None


def by_library(address: str) -> str | None:
    try:
        found = validate_email(address.strip(), check_deliverability=False, allow_smtputf8=False)
    except EmailNotValidError:
        return None
    return f"{found.local_part}@{found.ascii_domain}".lower()


class TestBringing:
    def test_a_reader_comes_with_evidence_tags_and_attributes(self, world: World) -> None:
        agreed = datetime(2024, 5, 1, tzinfo=UTC)
        report = bring(
            world,
            line(
                "ann",
                name="Ann",
                consent_at=agreed,
                source="form",
                ip="192.0.2.7",
                tags=("beta",),
                attributes=(("city", "上海"),),
            ),
            file="readers.csv",
        )
        (one,) = world.audience.listing("daily")
        assert (one.state, one.name, one.consent_at, one.source) == (
            SubscriptionState.ACTIVE,
            "Ann",
            agreed,
            "form",
        )
        (evidence,) = rows(world, consents)
        assert (
            evidence.kind,
            evidence.at,
            evidence.source,
            evidence.ip,
            evidence.detail,
            evidence.import_id,
        ) == (*("imported", agreed, "form", "192.0.2.7", "line 2", report.import_id),)
        assert [row.tag for row in rows(world, subscription_tags)] == ["beta"]
        assert [(row.name, row.value) for row in rows(world, subscription_attributes)] == [("city", "上海")]
        (kept,) = world.audience.imports()
        assert (kept.file, kept.counts, kept.finished_at is not None) == (
            "readers.csv",
            {"active": {"added": 1}},
            True,
        )
        assert world.audience.count("daily", "email") == 1

    def test_nobody_is_revived(self, world: World) -> None:
        world.subscribe("left", "here")
        world.leave("left")
        world.audience.suppress("email", "bounced@readers.example", SuppressionReason.BOUNCED)
        with world.database.write() as connection:
            erased = fingerprint(world.audience.key(connection), "email", "erased@readers.example")
        world.audience.suppress("email", erased, SuppressionReason.ERASED)
        names = ["left", "here", "bounced", "erased", "new"]
        report = bring(world, *map(line, names), line("erased", standing=Standing.UNSUBSCRIBED))
        assert states(world) == {"left": "unsubscribed", "here": "active", "new": "active"}
        assert report.table == {
            "active": {"added": 1, "known": 1, "left before": 1, "suppressed": 2},
            "unsubscribed": {"suppressed": 1},
        }
        assert "erased@readers.example" not in {row.address for row in rows(world, subscribers)}

    def test_what_ends_mail_arrives_and_stays(self, world: World) -> None:
        left = datetime(2025, 1, 2, tzinfo=UTC)
        ends = [
            Standing.UNSUBSCRIBED,
            Standing.BOUNCED,
            Standing.COMPLAINED,
            Standing.BLOCKED,
            Standing.UNCONFIRMED,
        ]
        report = bring(
            world, *(line(str(one), standing=one, ended_at=left) for one in ends), origin="listmonk"
        )
        assert report.of(Verdict.ADDED) == 4
        assert report.of(Verdict.OMITTED) == 1
        (gone,) = world.audience.listing("daily")
        assert (gone.state, gone.ended_at, gone.end_reason) == (
            *(SubscriptionState.UNSUBSCRIBED, left, "listmonk: unsubscribed"),
        )
        assert {row.address.partition("@")[0]: row.reason for row in rows(world, suppressions)} == {
            "bounced": "bounced",
            "complained": "complained",
            "blocked": "manual",
        }
        (evidence,) = rows(world, consents)
        assert (evidence.kind, evidence.at) == ("withdrawn", left)
        again = bring(world, *(line(str(one)) for one in ends[:4]))
        assert again.table == {"active": {"left before": 1, "suppressed": 3}}
        assert world.audience.count("daily", "email") == 0

    def test_whoever_is_in_a_file_twice_does_not_get_in_by_the_other_line(self, world: World) -> None:
        report = bring(
            world,
            *(line("ann"), line("bob"), line("ann", standing=Standing.UNSUBSCRIBED)),
            *(line("bob", standing=Standing.BOUNCED), line("cy"), line("cy")),
        )
        assert states(world) == {"ann": "unsubscribed", "cy": "active"}
        assert report.table["active"] == {"added": 1, "duplicate": 1, "left before": 1, "suppressed": 1}

    def test_who_left_there_after_the_first_import_is_ended_by_the_next(self, world: World) -> None:
        old, moved = datetime(2024, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
        bring(world, *(line(name, consent_at=old) for name in ("ann", "bob", "cy")))
        world.subscribe("own")
        gone = {"standing": Standing.UNSUBSCRIBED}
        report = bring(
            world,
            *(line("ann", ended_at=moved, **gone), line("bob", ended_at=old - timedelta(days=1), **gone)),
            *(line("cy", **gone), line("own", **gone)),
        )
        assert states(world) == {
            "ann": "unsubscribed",
            "bob": "active",
            "cy": "unsubscribed",
            "own": "active",
        }
        assert report.table == {"unsubscribed": {"ended": 2, "known": 2}}

    def test_windows(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("WINDOW", "SMALL_WINDOW"):
            monkeypatch.setattr(windows, name, 100)
        lines = [line(f"reader-{number % 450}") for number in range(500)]
        seen: list[int] = []
        order = ImportOrder(newsletter="daily")
        dry = world.audience.import_lines(ImportOrder(newsletter="daily", dry_run=True), [Given(lines)])
        assert rows(world, subscribers) == rows(world, imports) == []
        report = world.audience.import_lines(order, [Given(lines, frozenset({Standing.ACTIVE}))], seen.append)
        assert (report.table, seen) == (
            {"active": {"added": 450, "duplicate": 50}},
            [100, 200, 300, 400, 500],
        )
        assert dry.table == report.table
        assert bring(world, *lines).table == {"active": {"known": 500}}

    def test_a_dry_run_counts_what_the_run_does(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("WINDOW", "SMALL_WINDOW"):
            monkeypatch.setattr(windows, name, 2)
        world.subscribe("here", "left")
        world.leave("left")
        lines = [
            *map(line, ["new", "here", "left", "new", "both", "barred"]),
            *(line("both", standing=Standing.UNSUBSCRIBED), line("barred", standing=Standing.BOUNCED)),
            *(line("barred", standing=Standing.BOUNCED), line("waits", standing=Standing.UNCONFIRMED)),
        ]
        before = states(world)
        dry = bring(world, *lines, dry_run=True)
        assert states(world) == before
        assert dry.import_id is None
        assert bring(world, *lines).table == dry.table

    def test_killed_and_run_again(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("WINDOW", "SMALL_WINDOW"):
            monkeypatch.setattr(windows, name, 10)

        def breaks() -> Iterator[Line]:
            yield from (line(f"reader-{number}") for number in range(25))
            raise KeyboardInterrupt

        source = Given([], frozenset({Standing.ACTIVE}))
        object.__setattr__(source, "lines", breaks)
        with pytest.raises(KeyboardInterrupt):
            world.audience.import_lines(ImportOrder(newsletter="daily"), [source])
        assert len(rows(world, subscriptions)) == 20
        assert world.audience.imports()[0].finished_at is None
        again = bring(world, *(line(f"reader-{number}") for number in range(30)))
        assert again.table == {"active": {"added": 10, "known": 20}}

    def test_a_sign_up_at_that_moment_is_no_trouble(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        judge = windows.Imports._judge

        def late(self: Any, *given: Any, **named: Any) -> Any:
            judged = judge(self, *given, **named)
            if (
                not any(row.address.startswith("ann@") for row in rows(world, subscribers))
                and not world.database.sqlite
            ):
                world.subscribe("ann")
            return judged

        monkeypatch.setattr(windows.Imports, "_judge", late)
        report = bring(world, line("ann"), line("bob"))
        assert states(world) == {"ann": "active", "bob": "active"}
        assert report.read == 2

    def test_an_old_reader_of_another_newsletter(self, world: World) -> None:
        world.subscribe("ann")
        report = world.audience.import_lines(ImportOrder(newsletter="weekly"), [Given([line("ann")])])
        assert report.added == 1
        assert len(rows(world, subscribers)) == 1

    @pytest.mark.parametrize("dry_run", [False, True])
    def test_of_two_reasons_the_stronger_one_stands(self, world: World, *, dry_run: bool) -> None:
        """Failures that were counted can be taken back, a complaint cannot."""
        world.subscribe("ann")
        with world.database.write() as connection:
            world.audience.suppress_within(
                connection, "email", "ann@readers.example", SuppressionReason.UNDELIVERABLE, ""
            )
        report = bring(
            world,
            line("ann", standing=Standing.COMPLAINED),
            *(line("bob", standing=one) for one in (Standing.BOUNCED, Standing.COMPLAINED, Standing.BLOCKED)),
            dry_run=dry_run,
        )
        assert report.of(Verdict.KNOWN) == 1
        assert report.of(Verdict.DUPLICATE) == 2
        with world.database.write() as connection:
            world.audience.lift_counted(connection, "email", "ann@readers.example")
        found = {row.address[:3]: row.reason for row in rows(world, suppressions)}
        assert found == ({} if dry_run else {"ann": "complained", "bob": "complained"})

    def test_telegram(self, world: World) -> None:
        bring(world, Line(2, "4711", channel="telegram"))
        assert world.audience.count("daily", "telegram") == 1


class TestUndo:
    def test_what_it_brought_goes(self, world: World) -> None:
        world.subscribe("own")
        report = bring(
            world,
            *(line("ann", tags=("x",), attributes=(("a", "b"),), links=("listmonk:1",)), line("own")),
            *(line("bob", standing=Standing.BOUNCED), line("cy", standing=Standing.UNSUBSCRIBED)),
        )
        assert report.import_id is not None
        plan = world.audience.plan_undo(report.import_id)
        assert (plan.subscriptions, plan.suppressions, plan.stays) == (2, 1, 0)
        assert len(states(world)) == 3
        assert world.audience.undo_import(report.import_id) == plan
        assert states(world) == {"own": "active"}
        for table in (subscription_tags, subscription_attributes, suppressions, consents):
            assert rows(world, table) == []
        assert [row.address for row in rows(world, subscribers)] == ["own@readers.example"]
        assert world.audience.tokens_of_old_link("listmonk:1") == []
        assert world.audience.import_(report.import_id).undone_at is not None
        assert world.audience.undo_import(report.import_id).subscriptions == 0
        assert bring(world, line("cy")).added == 1

    def test_what_changed_since_stays_and_is_named(self, world: World) -> None:
        report = bring(
            world, *map(line, ("ann", "bob", "cy", "dora")), line("eve", standing=Standing.BOUNCED)
        )
        assert report.import_id is not None
        world.leave("ann")
        world.audience.import_lines(ImportOrder(newsletter="weekly"), [Given([line("bob")])])
        with world.database.write() as connection:
            connection.execute(
                insert(events).values(
                    provider="ses",
                    provider_event_id="1",
                    kind="bounced",
                    channel="email",
                    address="eve@readers.example",
                    occurred_at=world.clock(),
                    received_at=world.clock() + timedelta(seconds=1),
                    detail="",
                )
            )
        undone = world.audience.undo_import(report.import_id)
        assert (undone.subscriptions, undone.suppressions, undone.stays) == (3, 0, 2)
        assert undone.examples == ["ann@readers.example", "eve@readers.example"]
        assert states(world) == {"ann": "unsubscribed"}
        assert {row.address.partition("@")[0] for row in rows(world, subscribers)} == {"ann", "bob"}

    def test_who_comes_next_is_not_taken_for_who_went(self, world: World) -> None:
        """An issue was frozen meanwhile, and SQLite gives the highest number away again."""
        report = bring(world, line("ann"))
        assert report.import_id is not None
        issue = world.open()
        world.audience.undo_import(report.import_id)
        world.subscribe("bob")
        world.drain()
        assert world.channel.reached == []
        assert world.states(issue) == {"ann": "skipped(unsubscribed)"}

    def test_a_mailbox_that_a_chat_is_connected_to_stays(self, world: World) -> None:
        """Its subscription goes; a person whose chat was connected is still one person."""
        report = bring(world, line("ann"))
        world.subscribe("4711", channel="telegram")
        (ann,) = (row.id for row in rows(world, subscribers) if row.channel == "email")
        with world.database.write() as connection:
            connection.execute(
                update(subscribers).where(subscribers.c.channel == "telegram").values(linked_to=ann)
            )
        world.audience.undo_import(report.import_id or 0)
        assert [one.address for one in world.audience.listing("daily")] == ["4711"]
        assert {row.id for row in rows(world, subscribers)} >= {ann}

    def test_a_reason_that_was_made_stronger(self, world: World) -> None:
        """Each import answers for what it says, and none for what was heard here."""
        world.audience.suppress("email", "own@readers.example", SuppressionReason.MANUAL)
        first = bring(world, line("ann", standing=Standing.BOUNCED))
        second = bring(world, *(line(who, standing=Standing.COMPLAINED) for who in ("ann", "own")))
        for report in (first, second):
            assert report.import_id is not None
        world.audience.undo_import(first.import_id or 0)
        assert {row.address[:3]: row.reason for row in rows(world, suppressions)} == {
            "ann": "complained",
            "own": "complained",
        }
        world.audience.undo_import(second.import_id or 0)
        assert {row.address[:3] for row in rows(world, suppressions)} == {"own"}

    def test_an_unknown_one(self, world: World) -> None:
        with pytest.raises(RequestRefused, match="no import 99"):
            world.audience.undo_import(99)


class TestMailedToday:
    def test_they_begin_with_tomorrows_issue(self, world: World) -> None:
        world.subscribe("own")
        tomorrow = world.clock() + timedelta(hours=12)
        bring(world, line("ann"), begins_at=tomorrow)
        first = world.open()
        world.clock.forward(timedelta(days=1))
        second = world.open(first.local_date + timedelta(days=1), "second")
        world.drain()
        assert set(world.log(first)) == {"own@readers.example"}
        assert set(world.log(second)) == {"own@readers.example", "ann@readers.example"}
        assert world.check_sum(second).sent == 2


def test_reading_ahead_ends_with_its_reader() -> None:
    endless = iter(int, 1)
    taken = ahead(endless)
    assert [next(taken) for _ in range(3)] == [0, 0, 0]
    taken.close()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="broken"):
        list(ahead(_broken()))


def _broken() -> Iterator[int]:
    yield 1
    raise ValueError("broken")


def test_what_we_export_can_be_imported(world: World, tmp_path: Path) -> None:
    agreed = datetime(2024, 5, 1, tzinfo=UTC)
    bring(
        world,
        line(
            "ann",
            name="=1+1",
            consent_at=agreed,
            source="form",
            tags=("a b",),
            attributes=(("city", "上海"),),
        ),
        line("bob", standing=Standing.UNSUBSCRIBED, ended_at=agreed),
        line("cy"),
    )
    world.audience.suppress("email", "cy@readers.example", SuppressionReason.COMPLAINED)
    path = tmp_path / "out.csv"
    with world.audience.export(Export.SUBSCRIBERS, "daily") as table, path.open("w", newline="") as file:
        write_csv(table, file)
    (source,) = understand("csv", [("", sheets_of(path))], Reading())
    found = {one.address[:2]: one for one in source.lines() if isinstance(one, Line)}
    ann, bob, cy = found["an"], found["bo"], found["cy"]
    assert (ann.standing, ann.name, ann.consent_at, ann.source) == (Standing.ACTIVE, "=1+1", agreed, "form")
    assert (ann.tags, ann.attributes) == (("a b",), (("city", "上海"),))
    assert (bob.standing, bob.ended_at) == (Standing.UNSUBSCRIBED, agreed)
    assert cy.standing is Standing.COMPLAINED
