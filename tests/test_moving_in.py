"""From listmonk, Ghost and Mailchimp: their files as they are exported, and the links of their mails."""

import asyncio
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes import BOTH, World, make_world, migrated_database
from services import Project

from distributor.audience import Given, ImportOrder, ImportReport, Line, Refusal, Standing, Verdict
from distributor.audience.importing import Reading, ghost_link, listmonk_link, sheets_of, understand
from distributor.audience.importing.cells import BadCell
from distributor.audience.importing.origins import MOST_ATTRIBUTES, _from_json
from distributor.bootstrap import Distributor, build, prepare
from distributor.db import Database
from distributor.errors import RequestRefused
from distributor.model import SubscriptionState
from distributor.web import create_app

UUIDS = [f"00000000-0000-4000-8000-{number:012}" for number in range(9)]
KEY = "c0ffee" * 10

LISTMONK = (
    "uuid,email,name,attributes,status,created_at,updated_at\n"
    f'{UUIDS[1]},ann@readers.example,Ann,"{{""city"": ""Paris"", ""tags"": [""Beta"", ""a, b""], ""n"": 1, ""deep"": {{""x"": null}}}}",'
    "enabled,2023-04-05 06:07:08.123456 +0000 UTC,2024-01-01 00:00:00 +0000 UTC\n"
    f"{UUIDS[2]},Bob@Readers.example,Bob,{{}},enabled,2023-04-06 06:07:08 +0800 CST,2024-01-01 00:00:00 +0000 UTC\n"
    f"{UUIDS[3]},cy@readers.example,,{{}},blocklisted,2023-04-07 06:07:08 +0000 UTC,2024-01-01 00:00:00 +0000 UTC\n"
    f"{UUIDS[4]},dora@readers.example,,{{}},disabled,2023-04-07 06:07:08 +0000 UTC,0001-01-01 00:00:00 +0000 UTC\n"
    f"{UUIDS[5]},broken,,{{}},enabled,2023-04-07 06:07:08 +0000 UTC,\n"
    f"{UUIDS[6]},odd@readers.example,,[1],enabled,2023-04-07 06:07:08 +0000 UTC,\n"
)
#: The same by a query: `\copy (SELECT …) TO STDOUT WITH (FORMAT csv, HEADER)` writes times in this way.
LISTMONK_QUERY = (
    "uuid,email,name,attributes,status,subscription_status,subscribed_at,unsubscribed_at\n"
    f"{UUIDS[1]},ann@readers.example,Ann,{{}},enabled,confirmed,2023-04-05 06:07:08.123456+00,2023-04-05 06:07:08+00\n"
    f"{UUIDS[2]},bob@readers.example,Bob,{{}},enabled,unsubscribed,2023-04-05 06:07:08+00,2024-02-03 04:05:06+00\n"
    f"{UUIDS[3]},cy@readers.example,Cy,{{}},enabled,unconfirmed,2023-04-05 06:07:08+00,\n"
    f"{UUIDS[4]},dora@readers.example,Dora,{{}},blocklisted,confirmed,2023-04-05 06:07:08+00,\n"
)
GHOST = (
    "id,email,name,note,subscribed_to_emails,complimentary_plan,stripe_customer_id,created_at,deleted_at,labels,tiers,"
    "unsubscribe_url\r\n"
    '65a1,ann@readers.example,Ann,likes tea,true,false,,2023-04-05T06:07:08.000Z,,"VIP,Beta",,'
    f"https://old.example/unsubscribe/?uuid={UUIDS[1]}&key={KEY}&newsletter={UUIDS[8]}\r\n"
    f"65a2,bob@readers.example,Bob,,false,false,,2023-04-05T06:07:08.000Z,,,,https://old.example/unsubscribe/?uuid={UUIDS[2]}&key={KEY}\r\n"
    "65a3,cy@readers.example,Cy,,maybe,false,,2023-04-05T06:07:08.000Z,,,,\r\n"
)
MAILCHIMP_HEAD = (
    '"Email Address","First Name","Last Name",MEMBER_RATING,OPTIN_TIME,OPTIN_IP,CONFIRM_TIME,CONFIRM_IP,LATITUDE,LONGITUDE,'
    "GMTOFF,DSTOFF,TIMEZONE,CC,REGION,{more}LAST_CHANGED,LEID,EUID,NOTES,TAGS\n"
)
MAILCHIMP = {
    "subscribed": MAILCHIMP_HEAD.format(more="")
    + 'ann@readers.example,Ann,Li,2,"2023-04-05 06:07:08",192.0.2.1,"2023-04-05 06:09:00",192.0.2.2,,,,,,,,"2024-01-01 00:00:00",1,a,,"""VIP"",""Blog"""\n'
    'bob@readers.example,Bob,,2,"2023-04-05 06:07:08",192.0.2.1,,"2023-04-05 06:07:08",,,,,,,,"2024-01-01 00:00:00",2,b,,\n'
    'cy@readers.example,Cy,,2,,,,,,,,,,,,"2024-01-01 00:00:00",3,c,,\n',
    "unsubscribed": MAILCHIMP_HEAD.format(more="UNSUB_TIME,UNSUB_CAMPAIGN_TITLE,UNSUB_CAMPAIGN_ID,UNSUB_REASON,UNSUB_REASON_OTHER,")
    + 'dora@readers.example,Dora,,2,,,"2022-01-01 00:00:00",,,,,,,,,"2024-02-03 04:05:06","May",1,"No longer interested",,"2024-02-03 04:05:06",4,d,,\n'
    'spam@readers.example,,,2,,,"2022-01-01 00:00:00",,,,,,,,,"2024-02-03 04:05:06","May",1,"Abuse complaint",,"2024-02-03 04:05:06",5,e,,\n',
    "cleaned": MAILCHIMP_HEAD.format(more="CLEAN_TIME,CLEAN_CAMPAIGN_TITLE,CLEAN_CAMPAIGN_ID,")
    + 'eve@readers.example,Eve,,2,,,"2022-01-01 00:00:00",,,,,,,,,"2024-02-03 04:05:06","May",1,"2024-02-03 04:05:06",6,f,,\n',
    "nonsubscribed": MAILCHIMP_HEAD.format(more="")
    + 'buyer@readers.example,,,2,,,,,,,,,,,,"2024-01-01 00:00:00",7,g,,\n',
}  # fmt: skip


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as database:
        yield database


@pytest.fixture
def world(database: Database) -> World:
    return make_world(database)


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def zipped(folder: Path, **files: str) -> Path:
    path = folder / "audience_export_1a2b.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(f"{name}_email_audience_export_1a2b.csv", text)
    return path


def lines_of(origin: str, *files: Path, says: str = "", consent: str = "") -> Sequence[Line | Refusal]:
    sources = understand(origin, [(says, sheets_of(file)) for file in files], Reading(consent=consent))
    return [line for source in sources for line in source.lines()]


def good(found: Sequence[Line | Refusal]) -> dict[str, Line]:
    return {line.address.partition("@")[0]: line for line in found if isinstance(line, Line)}


def moved(world: World, origin: str, *files: Path, says: str = "", dry_run: bool = False) -> ImportReport:
    sources = understand(origin, [(says, sheets_of(file)) for file in files], Reading())
    return world.audience.import_lines(
        ImportOrder(newsletter="daily", origin=origin, dry_run=dry_run), sources
    )


def states(world: World) -> dict[str, str]:
    found = world.audience.listing("daily", limit=100)
    return {one.address.partition("@")[0]: str(one.state) for one in found}


class TestListmonk:
    def test_the_csv_of_its_export(self, tmp_path: Path) -> None:
        found = lines_of("listmonk", written(tmp_path, "subscribers.csv", LISTMONK), says="confirmed")
        ann, bob, cy, dora = (good(found)[name] for name in ("ann", "bob", "cy", "dora"))
        assert (ann.standing, ann.says, ann.source) == (Standing.ACTIVE, "confirmed", "listmonk")
        assert ann.consent_at == datetime(2023, 4, 5, 6, 7, 8, 123456, UTC)
        assert ann.tags == ("beta", "a b")
        assert dict(ann.attributes) == {"city": "Paris", "n": "1", "deep": '{"x": null}'}
        assert ann.links == (listmonk_link(UUIDS[1]),)
        assert bob.consent_at == datetime(2023, 4, 5, 22, 7, 8, tzinfo=UTC)
        assert (cy.standing, cy.says) == (Standing.BLOCKED, "blocklisted")
        assert (dora.standing, dora.ended_at) == (Standing.UNSUBSCRIBED, None)
        refused = [one for one in found if isinstance(one, Refusal)]
        assert [(one.number, one.column) for one in refused] == [(6, "email"), (7, "attributes")]

    def test_a_file_that_does_not_say_who_left_is_refused(self, tmp_path: Path) -> None:
        path = written(tmp_path, "subscribers.csv", LISTMONK)
        with pytest.raises(RequestRefused, match="does not say who has left the list"):
            lines_of("listmonk", path)
        with pytest.raises(RequestRefused, match="one of confirmed, unsubscribed, unconfirmed"):
            lines_of("listmonk", path, says="left")

    def test_its_counts_are_what_arrives(self, world: World, tmp_path: Path) -> None:
        path = written(tmp_path, "list.csv", LISTMONK_QUERY)
        dry = moved(world, "listmonk", path, dry_run=True)
        report = moved(world, "listmonk", path)
        assert (
            dry.table
            == report.table
            == {
                "blocklisted": {"added": 1},
                "confirmed": {"added": 1},
                "unconfirmed": {"left out": 1},
                "unsubscribed": {"added": 1},
            }
        )
        assert states(world) == {"ann": "active", "bob": "unsubscribed"}
        bob = next(one for one in world.audience.listing("daily") if one.address.startswith("bob@"))
        assert bob.ended_at == datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC)
        assert len(world.audience.tokens_of_old_link(listmonk_link(UUIDS[2].upper()))) == 1


class TestGhost:
    def test_members(self, tmp_path: Path) -> None:
        found = lines_of("ghost", written(tmp_path, "members.csv", GHOST))
        ann, bob = good(found)["ann"], good(found)["bob"]
        assert (ann.says, ann.tags, ann.source) == ("subscribed", ("vip", "beta"), "Ghost")
        assert ann.consent_at == datetime(2023, 4, 5, 6, 7, 8, tzinfo=UTC)
        assert ann.links == (ghost_link(UUIDS[1], KEY),)
        assert (bob.says, bob.standing) == ("not subscribed", Standing.UNSUBSCRIBED)
        assert isinstance(found[2], Refusal)
        assert found[2].problem == "is neither true nor false"

    def test_another_file_is_none_of_its(self, tmp_path: Path) -> None:
        with pytest.raises(RequestRefused, match="no column subscribed_to_emails"):
            lines_of("ghost", written(tmp_path, "x.csv", "email\n"))


class TestMailchimp:
    def test_a_zip_of_every_status(self, world: World, tmp_path: Path) -> None:
        path = zipped(tmp_path, **MAILCHIMP)
        dry, report = moved(world, "mailchimp", path, dry_run=True), moved(world, "mailchimp", path)
        assert (
            dry.table
            == report.table
            == {
                "cleaned": {"added": 1},
                "nonsubscribed": {"left out": 1},
                "subscribed": {"added": 2, "refused": 1},
                "unsubscribed": {"added": 2},
            }
        )
        assert states(world) == {"ann": "active", "bob": "active", "dora": "unsubscribed"}
        assert moved(world, "mailchimp", path).of(Verdict.KNOWN) == 5

    def test_what_a_line_says(self, tmp_path: Path) -> None:
        found = lines_of("mailchimp", zipped(tmp_path, **MAILCHIMP), consent="Mailchimp, double opt-in")
        ann, bob, cy = (good(found)[name] for name in ("ann", "bob", "cy"))
        assert (ann.name, ann.tags, ann.ip) == ("Ann Li", ("vip", "blog"), "192.0.2.2")
        assert ann.consent_at == datetime(2023, 4, 5, 6, 9, tzinfo=UTC)
        assert (bob.ip, bob.consent_at) == ("192.0.2.1", datetime(2023, 4, 5, 6, 7, 8, tzinfo=UTC))
        assert (cy.consent_at, cy.source) == (None, "Mailchimp, double opt-in")
        assert good(found)["spam"].standing is Standing.COMPLAINED
        assert good(found)["eve"].standing is Standing.BOUNCED
        assert good(found)["dora"].ended_at == datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC)

    def test_single_files_need_their_names(self, tmp_path: Path) -> None:
        text = MAILCHIMP["subscribed"]
        with pytest.raises(RequestRefused, match="say what this one is"):
            lines_of("mailchimp", written(tmp_path, "list.csv", text))
        assert len(lines_of("mailchimp", written(tmp_path, "list.csv", text), says="subscribed")) == 3

    def test_two_audiences_are_not_one(self, tmp_path: Path) -> None:
        path = tmp_path / "account.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for audience in ("a", "b"):
                archive.writestr(f"lists/{audience}/subscribed_{audience}.csv", MAILCHIMP["subscribed"])
        with pytest.raises(RequestRefused, match="several audiences"):
            lines_of("mailchimp", path)


class TestZips:
    def test_paths_in_it_lead_nowhere(self, tmp_path: Path) -> None:
        path = tmp_path / "export.zip"
        names = [
            "../../../etc/subscribed_x.csv",
            "/etc/cleaned_x.csv",
            "..\\..\\unsubscribed_x.csv",
            "readme.txt",
        ]
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, MAILCHIMP["subscribed"])
        before = sorted(tmp_path.rglob("*"))
        sheets = sheets_of(path)
        assert [sheet.name for sheet in sheets] == ["subscribed_x.csv", "cleaned_x.csv", "unsubscribed_x.csv"]
        assert len(list(sheets[0].rows())) == 3
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_bomb_is_refused_unread(self, tmp_path: Path) -> None:
        path = zipped(tmp_path, subscribed="email\n" + "0" * 5_000_000)
        with pytest.raises(RequestRefused, match="times as packed"):
            sheets_of(path)

    def test_one_that_lies_about_its_size_is_broken(self, tmp_path: Path) -> None:
        path = zipped(tmp_path, **MAILCHIMP)
        data = bytearray(path.read_bytes())
        at = data.index(b"PK\x01\x02")
        data[at + 24 : at + 28] = (100).to_bytes(4, "little")  # its uncompressed size
        path.write_bytes(data)
        with pytest.raises(RequestRefused, match="the zip is broken"):
            list(sheets_of(path)[0].rows())

    def test_encrypted_empty_and_torn_ones(self, tmp_path: Path) -> None:
        path = zipped(tmp_path, **MAILCHIMP)
        data = bytearray(path.read_bytes())
        data[data.index(b"PK\x01\x02") + 8] |= 1
        (tmp_path / "locked.zip").write_bytes(data)
        with pytest.raises(RequestRefused, match="is encrypted"):
            sheets_of(tmp_path / "locked.zip")
        (tmp_path / "torn.zip").write_bytes(path.read_bytes()[:200] + path.read_bytes()[-22:])
        with pytest.raises(RequestRefused, match="broken zip"):
            sheets_of(tmp_path / "torn.zip")
        empty = io.BytesIO()
        zipfile.ZipFile(empty, "w").close()
        (tmp_path / "empty.zip").write_bytes(empty.getvalue())
        with pytest.raises(RequestRefused, match="no CSV"):
            lines_of("mailchimp", tmp_path / "empty.zip")


@dataclass
class Site:
    """The web app, asked without a server."""

    distributor: Distributor

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def answer() -> httpx.Response:
            transport = httpx.ASGITransport(create_app(self.distributor))
            async with httpx.AsyncClient(transport=transport, base_url="http://old.example") as client:
                return await client.request(method, path, **options)

        return asyncio.run(answer())


class TestOldLinks:
    @pytest.fixture
    def site(self, project: Project) -> Iterator[Site]:
        distributor = build(project.settings())
        prepare(distributor)
        lines = [
            Line(2, "ann@readers.example", links=(listmonk_link(UUIDS[1]),)),
            Line(3, "bob@readers.example", links=(ghost_link(UUIDS[2], KEY),)),
        ]
        distributor.audience.import_lines(ImportOrder(newsletter="ai-daily"), [Given(lines)])
        yield Site(distributor)
        distributor.close()

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            (f"/subscription/{UUIDS[7]}/{UUIDS[1]}", "ann"),
            (f"/unsubscribe/?uuid={UUIDS[2]}&key={KEY}&newsletter={UUIDS[8]}", "bob"),
            (f"/unsubscribe?uuid={UUIDS[2]}&key={KEY}", "bob"),
        ],
    )
    def test_a_look_changes_nothing_and_one_click_ends(self, site: Site, path: str, name: str) -> None:
        def state() -> SubscriptionState:
            found = site.distributor.audience.listing("ai-daily")
            return next(one.state for one in found if one.address.startswith(f"{name}@"))

        assert site.ask("HEAD", path).status_code == 200
        assert 'method="post"' in site.ask("GET", path).text
        assert state() is SubscriptionState.ACTIVE
        for _ in range(2):
            done = site.ask("POST", path, data={"List-Unsubscribe": "One-Click"})
            assert done.status_code == 200
            assert state() is SubscriptionState.UNSUBSCRIBED
        assert "ann@" not in done.text

    @pytest.mark.parametrize(
        "path",
        [
            f"/subscription/{UUIDS[7]}/{UUIDS[6]}",
            f"/subscription/{UUIDS[7]}/%00",
            f"/unsubscribe/?uuid={UUIDS[2]}",
            f"/unsubscribe/?uuid={UUIDS[2]}&key=wrong",
            "/unsubscribe/?uuid=%00&key=%F0%9F%98%80",
        ],
    )
    def test_unknown_ones(self, site: Site, path: str) -> None:
        for method in ("GET", "POST"):
            assert site.ask(method, path).status_code == 404
        assert site.distributor.audience.count("ai-daily", "email") == 2


def test_one_link_of_two_lists_ends_both(world: World) -> None:
    for newsletter in ("daily", "weekly"):
        line = Line(2, "ann@readers.example", links=(listmonk_link(UUIDS[1]),))
        world.audience.import_lines(ImportOrder(newsletter=newsletter), [Given([line])])
    assert len(world.audience.tokens_of_old_link(listmonk_link(UUIDS[1]))) == 2


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"a":' * 100_000])
def test_json_that_is_too_deep_is_a_bad_cell(deep: str) -> None:
    with pytest.raises(BadCell, match="is no JSON"):
        _from_json(deep)


def test_halves_of_characters_are_left_out() -> None:
    """JavaScript cuts a text within an emoji, and JSON has what is left."""
    tags, attributes = _from_json(r'{"tags": ["x\ud83d"], "bio": "tea \ud83d", "list": ["\ud83d"]}')
    assert tags == ("x",)
    assert dict(attributes) == {"bio": "tea", "list": '[" "]'}


def test_a_million_attributes_are_not_kept() -> None:
    tags, pairs = _from_json(json.dumps({f"k{n}": n for n in range(1000)} | {"tags": "solo"}))
    assert (tags, len(pairs)) == ((), MOST_ATTRIBUTES)
