"""The sandbox's memory: what was accepted survives SIGKILL and reopening, and is counted right."""

import os
import signal
import smtplib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distributor.sandbox.inbox import Inbox

SERVE = """
import sys
from pathlib import Path
from distributor.sandbox.server import run_sandbox
run_sandbox(Path(sys.argv[1]), 0, 0, announce=lambda s: print(s.smtp_port, s.http_port, flush=True))
"""
MAIL = b"From: a@example.org\r\nTo: b@example.org\r\nMessage-ID: <1@example.org>\r\n\r\n.one\r\n..two\r\n"


def _serve(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", SERVE, str(folder)], stdout=subprocess.PIPE, text=True)


def _port(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    return int(process.stdout.readline().split()[0])


def test_sigkill_loses_nothing_that_was_accepted(tmp_path: Path) -> None:
    with _serve(tmp_path) as process, smtplib.SMTP("127.0.0.1", _port(process)) as client:
        for number in range(20):
            client.sendmail("a@example.org", f"reader{number}@example.org", MAIL)
        process.send_signal(signal.SIGKILL)
        process.wait(5)
        client.close()
    inbox = Inbox(tmp_path)
    assert inbox.count("email") == 20
    assert inbox.mail(20) == MAIL
    inbox.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_even_with_a_client_connected(
    tmp_path: Path, number: signal.Signals
) -> None:
    with _serve(tmp_path) as process, smtplib.SMTP("127.0.0.1", _port(process)) as client:
        process.send_signal(number)
        assert process.wait(5) == 0
        client.close()


def test_a_torn_line_is_dropped_and_numbers_go_on(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    inbox.accepted("email", "a@example.org", {"subject": "早"}, mail=MAIL)
    inbox.refused("telegram", "42", "403 Forbidden")
    inbox.close()
    with (tmp_path / "inbox.jsonl").open("ab") as lines:
        lines.write(b'{"id": 3, "at": "20')
    again = Inbox(tmp_path)
    third = again.accepted("wecom", "693a****aaaa", {"msgtype": "text", "content": "x"})
    assert [entry.id for entry in again.entries()] == [1, 2, 3]
    assert third.id == 3
    assert again.entry(1).content == {"subject": "早"}
    again.close()
    last = Inbox(tmp_path)
    assert last.count() == 2
    assert last.count("telegram", accepted=False) == 1
    last.close()


def test_counts_tell_copies_from_messages() -> None:
    inbox = Inbox(None)
    for address, mark in (("a", "1"), ("a", "1"), ("a", "2"), ("b", "1")):
        inbox.accepted("email", address, {}, fingerprint=mark)
    inbox.refused("email", "c", "550")
    assert inbox.counts()["email"] == {
        "accepted": 4,
        "refused": 1,
        "addresses": 2,
        "unique": 3,
        "duplicates": 1,
    }
    assert inbox.addresses("email") == {"a": 3, "b": 1}
    assert [entry.id for entry in inbox.entries("email", "a")] == [1, 2, 3]
    assert [entry.address for entry in inbox.entries(search="C")] == ["c"]


@pytest.mark.parametrize("number", [0, 2, -1])
def test_an_entry_that_is_not_there_is_a_key_error(number: int) -> None:
    inbox = Inbox(None)
    inbox.refused("email", "a", "550")
    with pytest.raises(KeyError):
        inbox.entry(number)
    with pytest.raises(KeyError):
        inbox.mail(1)


def test_takes_five_thousand_mails_at_a_thousand_a_second(tmp_path: Path) -> None:
    inbox, mail = Inbox(tmp_path), MAIL + os.urandom(12_000)
    start = time.perf_counter()
    for number in range(5000):
        inbox.accepted("email", f"reader{number}@example.org", {"subject": "早报"}, mail=mail)
    seconds = time.perf_counter() - start
    assert inbox.mail(5000) == mail
    inbox.close()
    assert seconds < 5
