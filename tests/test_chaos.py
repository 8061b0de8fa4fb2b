"""The short form of `make chaos`: workers killed, frozen and cut off, the database crashed, while a sink counts."""

import os
import random
import shutil
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chaos import history
from chaos.processes import ChaosError, SinkProcess
from chaos.report import Result, table
from chaos.scenarios import SHORT_FORM, run
from chaos.world import TELLING, TOLD
from services import ROOT, Missing

MAIL = b"Message-ID: <1@example>\r\nSubject: x\r\n\r\nhello\r\n"


@pytest.fixture
def sink() -> Iterator[SinkProcess]:
    sink = SinkProcess(1)
    yield sink
    sink.close()


def send(sink: SinkProcess, *recipients: str) -> list[int]:
    """The codes of the replies to one mail each; 0 where there was none."""
    codes = []
    for recipient in recipients:
        try:
            with smtplib.SMTP("127.0.0.1", sink.port, timeout=5) as client:
                client.sendmail("a@example", recipient, MAIL)
                codes.append(250)
        except smtplib.SMTPRecipientsRefused as error:
            codes.append(error.recipients[recipient][0])
        except smtplib.SMTPResponseException as error:
            codes.append(error.smtp_code)
        except (smtplib.SMTPServerDisconnected, OSError):
            codes.append(0)
    return codes


def test_the_sink_counts_what_it_took_for_each_recipient(sink: SinkProcess) -> None:
    assert send(sink, "a@x.example", "b@x.example", "a@x.example") == [250, 250, 250]
    assert sink.messages == 3
    assert sink.readers() == {
        "a@x.example": (2, 0, 0, ["1@example", "1@example"]),
        "b@x.example": (1, 0, 0, ["1@example"]),
    }


def test_a_line_cut_behind_the_final_dot_leaves_a_message_without_an_answer(sink: SinkProcess) -> None:
    sink.ask(next_drop_after=1)
    assert send(sink, "a@x.example", "a@x.example") == [0, 250]
    assert sink.readers()["a@x.example"][:2] == (1, 1)


def test_a_line_cut_before_the_final_dot_leaves_no_message(sink: SinkProcess) -> None:
    sink.ask(drop_before=1.0)
    assert send(sink, *["a@x.example"] * 8) == [0] * 8  # cut at DATA, or within the body
    assert sink.readers() == {}
    assert sink.ask()["dropped_before"] == 8


@pytest.mark.parametrize(
    ("faults", "codes"),
    [
        ({"refusals": [["450 4.2.1 busy", 1.0, 1]]}, [450, 250]),
        ({"refusals": [["550 5.1.1 nobody", 1.0, 9]]}, [550, 550]),
        ({"frequency": {"x.example": 0}}, [550, 550]),
        ({"closing": 1.0}, [421, 421]),
        ({"refuse": True}, [0, 0]),
        ({"down": True}, [0, 0]),
        ({"nonsense_dot": 1.0}, [-1, -1]),
    ],
)
def test_the_sink_has_a_bad_day_when_told_to(
    sink: SinkProcess, faults: dict[str, object], codes: list[int]
) -> None:
    sink.ask(**faults)
    assert send(sink, "a@x.example", "a@x.example") == codes


def test_a_reply_can_be_late_or_never_come(sink: SinkProcess) -> None:
    sink.ask(delay=0.2)
    asked = time.monotonic()
    assert send(sink, "a@x.example") == [250]
    assert time.monotonic() - asked >= 0.1
    sink.ask(hang=1.0)
    with smtplib.SMTP("127.0.0.1", sink.port, timeout=0.3) as client, pytest.raises(smtplib.SMTPException):
        client.sendmail("a@example", "b@x.example", MAIL)
    assert sink.readers()["b@x.example"][:2] == (0, 1)


def test_a_sink_that_goes_ends_its_messages_and_comes_back_at_its_port(sink: SinkProcess) -> None:
    with (
        smtplib.SMTP("127.0.0.1", sink.port, timeout=5) as idle,
        smtplib.SMTP("127.0.0.1", sink.port, timeout=5) as busy,
    ):
        busy.mail("a@example")
        busy.rcpt("a@x.example")
        assert busy.docmd("DATA")[0] == 354
        sink.ask(down=True)
        busy.send(MAIL + b".\r\n")
        assert busy.getreply()[0] == 250
        for client in (idle, busy):
            with pytest.raises(smtplib.SMTPServerDisconnected):
                client.noop()
    with pytest.raises(ConnectionRefusedError):
        smtplib.SMTP("127.0.0.1", sink.port, timeout=5)
    sink.ask(down=False)
    assert send(sink, "a@x.example") == [250]
    assert sink.readers()["a@x.example"][:2] == (2, 0)


def test_a_fault_that_the_sink_does_not_know_is_said(sink: SinkProcess) -> None:
    with pytest.raises(ChaosError, match="earthquake"):
        sink.ask(earthquake=1.0)


def test_the_table_shows_notes_and_problems_under_their_scenario() -> None:
    two = Result("two", "hold", 1, 10, notes=["sent: 5 by both"], problems=["3 doubled"])
    shown = table([Result("one", "hold", 1, 10), two])
    assert [line.split()[0] for line in shown.splitlines()] == ["scenario", "one", "two", "·", "!"]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs git in a project of its own, which the scenario takes for ours."""
    if not shutil.which("git"):
        pytest.skip("git is not installed: how an earlier commit is laid out is not tested here")
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)  # a hook's, which lead to our own repository
    monkeypatch.setattr(history, "ROOT", tmp_path)
    who = ("-c", "user.name=x", "-c", "user.email=x@example", "-c", "commit.gpgsign=false")

    def run_git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    return run_git


def test_the_version_before_is_the_last_commit_of_another_package(
    git: Callable[..., None], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    package, readme, number = tmp_path / "distributor" / "x.py", tmp_path / "README.md", iter(range(9))

    def before(ref: str | None = None) -> str:
        tree = history.lay_out(ref, tmp_path_factory.mktemp(f"old-{next(number)}"))
        return (tree / "distributor" / "x.py").read_text()

    package.parent.mkdir()
    git("init")
    for path, text in ((package, "first"), (package, "second"), (readme, "a document")):
        path.write_text(text)
        git("add", ".")
        git("commit", "-m", text)
    assert before() == "first"
    assert before("HEAD") == "second"
    package.write_text("third, not committed")
    assert before() == "second"
    with pytest.raises(ChaosError, match="--old REF"):
        before("no-such-commit")


def test_a_tree_without_history_says_so(
    git: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ChaosError, match="not an exported tree"):
        history.lay_out(None, tmp_path)
    git("init")
    (tmp_path / "exported").mkdir()
    monkeypatch.setattr(history, "ROOT", tmp_path / "exported")
    with pytest.raises(ChaosError, match="no git history of its own"):
        history.lay_out(None, tmp_path)


def test_a_process_tells_whose_code_it_runs() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = subprocess.run(
        [sys.executable, *TELLING, "--help"], env=environment, capture_output=True, text=True, check=True
    ).stdout
    first, *rest = said.splitlines()
    assert (found := TOLD.search(first))
    assert Path(found[2]) == ROOT
    assert "resend" in "".join(rest)


@pytest.mark.services
@pytest.mark.timeout(200)
@pytest.mark.parametrize("scenario", SHORT_FORM)
def test_nothing_is_lost_and_nothing_doubled(scenario: str) -> None:
    try:
        result = run(scenario, full=False, seed=random.randrange(1_000_000))
    except Missing as reason:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"NO SERVER for this test: {reason}")
    assert not result.problems, table([result])
    assert result.lost == result.wrong == 0
