"""A WeChat Official Account from the command line to the simulator: what the editor is told, in the log and the report."""

from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from pydantic import SecretStr
from services import Project

from distributor import dispatch
from distributor.bootstrap import Distributor, build, prepare
from distributor.dispatch import drain, open_issue, sweep, write_audience
from distributor.model import DeliveryState, Issue, OpenedBy
from distributor.posts import read_post
from distributor.rehearsal import into_sandbox
from distributor.sandbox.faults import Fault
from distributor.sandbox.server import Sandbox
from distributor.schedule import tell_ended

POST = "---\ntitle: 每封信都有收据\ndate: 2026-03-05\n---\n\n谁收到了，[都写在账上](https://example.com/ledger)。\n"
PLACES = [{"name": name, "default_cover": "cover.png"} for name in ("first", "second")]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(None) as running:
        yield running


@pytest.fixture
def distributor(project: Project, sandbox: Sandbox, tmp_path: Path) -> Iterator[Distributor]:
    project.write_post("receipts", POST)
    file = BytesIO()
    Image.new("RGB", (900, 383), "#0f5f8c").save(file, "PNG")
    (project.root / "cover.png").write_bytes(file.getvalue())
    settings = project.settings(newsletter={"channels": {"wechat": {"destinations": PLACES}}})
    built = build(into_sandbox(settings, sandbox, tmp_path / "rehearsal.sqlite3"))
    prepare(built)
    yield built
    built.close()


def send(distributor: Distributor) -> Issue:
    newsletter = distributor.settings.newsletters["ai-daily"]
    post = read_post(distributor.settings.root / "posts/receipts.md", newsletter.zone)
    issue, _ = open_issue(distributor.engine, newsletter, post, datetime.now(UTC).date(), by=OpenedBy.PERSON)
    write_audience(distributor.engine, issue)
    drain(distributor.engine, "wechat", seconds=4)
    return issue


def drafts(sandbox: Sandbox) -> list[str]:
    return [entry.address for entry in sandbox.inbox.entries("wechat") if entry.accepted]


def test_each_account_gets_a_draft_and_the_editor_is_told(distributor: Distributor, sandbox: Sandbox) -> None:
    issue = send(distributor)
    assert sorted(drafts(sandbox)) == ["wx0000000000000001", "wx0000000000000002"]
    entries = distributor.ledger.log(issue.id)
    assert [entry.state for entry in entries] == [DeliveryState.SENT] * 2
    assert all("draft created (media_id draft_" in entry.text for entry in entries)
    sweep(distributor.engine)
    tell_ended(distributor.engine, distributor.alerts)
    (notice,) = distributor.notices.listing()
    for name in ("first", "second"):
        assert f"wechat {name}: draft created (media_id draft_" in notice.body
    assert "an editor publishes it on mp.weixin.qq.com" in notice.body


def test_an_account_that_is_locked_out_stops_alone(distributor: Distributor, sandbox: Sandbox) -> None:
    sandbox.faults.add(Fault("wechat", "wx0000000000000001", "ip-list"))
    issue = send(distributor)
    assert drafts(sandbox) == ["wx0000000000000002"]
    states = {entry.destination: (entry.state, entry.tries) for entry in distributor.ledger.log(issue.id)}
    assert states == {"first": (DeliveryState.PENDING, 0), "second": (DeliveryState.SENT, 1)}
    ((name, stop),) = distributor.ledger.stopped_channels().items()
    assert name == "wechat/first"
    assert "invalid ip 127.0.0.1" in stop.reason


def test_a_test_send_reaches_the_account_that_was_asked_for(
    distributor: Distributor, sandbox: Sandbox
) -> None:
    newsletter = distributor.settings.newsletters["ai-daily"]
    post = read_post(distributor.settings.root / "posts/receipts.md", newsletter.zone)
    (receipt,) = dispatch.test_send(distributor.engine, newsletter, post, "wechat", "second")
    assert "draft created" in receipt.text
    (entry,) = sandbox.inbox.entries("wechat")
    assert (entry.address, entry.content["title"]) == ("wx0000000000000002", "[TEST] 每封信都有收据")


def test_secrets_of_the_sandbox_are_no_ones(distributor: Distributor) -> None:
    accounts = distributor.settings.wechat_accounts
    assert {name: account.secret for name, account in accounts.items()} == {
        "first": SecretStr("0" * 31 + "1"),
        "second": SecretStr("0" * 31 + "2"),
    }
