"""The journal of a lease: what survives `kill -9`, and what a successor reads."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributor.journal import (
    ENTRIES_AT,
    LENGTH,
    LENGTH_AT,
    LONGEST_TEXT,
    Journal,
    JournalBroken,
    Journals,
    Progress,
    Record,
    record_of,
)
from distributor.model import (
    Delivery,
    DeliveryId,
    DeliveryState,
    Outcome,
    Recipient,
    SuppressionReason,
)

NOW = datetime(2026, 3, 2, 7, 30, 0, 250_000, tzinfo=UTC)
NOTHING = Progress(0, ())


def outcome(seq: int, state: DeliveryState = DeliveryState.SENT, **details: object) -> Outcome:
    delivery = Delivery(
        identity=DeliveryId(1, seq),
        recipient=Recipient(channel="email", address=f"r{seq}@readers.example"),
        tries=0,
        first_try_at=None,
        parts_sent=0,
    )
    values = {"started_at": NOW, "duration_ms": 12, "parts_sent": 1, **details}
    return Outcome(delivery=delivery, state=state, **values)  # type: ignore[arg-type]  # the table below names them


@pytest.fixture
def journals(tmp_path: Path) -> Journals:
    found = Journals(tmp_path / "journal")
    assert found.host
    return found


@pytest.fixture
def journal(journals: Journals) -> Iterator[Journal]:
    made = journals.open("token", 10)
    yield made
    made.close()


class TestWhatItTells:
    def test_begun_and_ended(self, journals: Journals, journal: Journal) -> None:
        journal.begin(DeliveryId(1, 7), NOTHING)
        journal.end(outcome(7, code="250", text="2.0.0 Ok: queued as A1", receipts=("A1",), relay="one"))
        journal.begin(DeliveryId(1, 8), NOTHING)
        ended, begun = journals.read("token") or ()
        assert ended == record_of(
            outcome(7, code="250", text="2.0.0 Ok: queued as A1", receipts=("A1",), relay="one")
        )
        assert ended.ended is not None
        assert ended.ended["started_at"] == NOW
        assert begun == Record(DeliveryId(1, 8))

    @pytest.mark.parametrize(
        "ended",
        [
            outcome(3, DeliveryState.PENDING, retry_in=timedelta(seconds=90), counts=False, code="451"),
            outcome(3, DeliveryState.FAILED, suppress=SuppressionReason.BOUNCED, text="没有这个邮箱\n第二行"),
            outcome(3, DeliveryState.UNCONFIRMED, new_address="-100200", parts_sent=0),
        ],
        ids=lambda each: str(each.state),
    )
    def test_every_field_of_an_outcome_comes_back(
        self, journals: Journals, journal: Journal, ended: Outcome
    ) -> None:
        journal.begin(DeliveryId(1, 3), NOTHING)
        journal.end(ended)
        (record,) = journals.read("token") or ()
        assert record.ended is not None
        assert Outcome(delivery=ended.delivery, **record.ended) == ended

    def test_how_far_the_parts_came(self, journals: Journals, journal: Journal) -> None:
        journal.begin(DeliveryId(1, 3), NOTHING)
        journal.begin(DeliveryId(1, 3), Progress(1, ("11",)))
        (record,) = journals.read("token") or ()
        assert (record.progress.parts_sent, list(record.progress.receipts)) == (1, ["11"])

    def test_what_was_undone_or_written_to_the_ledger_is_gone(
        self, journals: Journals, journal: Journal
    ) -> None:
        journal.begin(DeliveryId(1, 3), NOTHING)
        journal.undo(DeliveryId(1, 3))
        assert journals.read("token") == []
        journal.begin(DeliveryId(1, 4), NOTHING)
        journal.reset()
        assert journals.read("token") == []

    @given(text=st.text(max_size=2 * LONGEST_TEXT))
    def test_any_words_of_a_server_fit(self, tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
        folder = Journals(tmp_path_factory.mktemp("journals"))
        journal = folder.open("t", 1)
        clean = text.encode("utf-8", "replace").decode()
        journal.begin(DeliveryId(1, 1), NOTHING)
        journal.end(outcome(1, text=clean))
        (record,) = folder.read("t") or ()
        assert record.ended is not None
        assert record.ended.get("text", "") == clean[:LONGEST_TEXT].replace("\0", "")
        journal.close()


class TestWhoHoldsIt:
    def test_it_is_ours_while_we_live_and_gone_when_we_close_it(self, journals: Journals) -> None:
        journal = journals.open("token", 1)
        assert journals.abandoned() == []
        journal.close()
        assert journals.read("token") is None

    def test_reading_revokes(self, journals: Journals, journal: Journal) -> None:
        assert not journal.revoked
        journals.read("token")
        assert journal.revoked

    def test_a_killed_process_leaves_it_to_a_successor(self, journals: Journals) -> None:
        script = (
            "import os, signal, sys; from pathlib import Path\n"
            "from distributor.journal import Journals, NOTHING_SENT\n"
            "from distributor.model import DeliveryId\n"
            "journal = Journals(Path(sys.argv[1])).open('token', 4)\n"
            "journal.begin(DeliveryId(1, 5), NOTHING_SENT)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        run = subprocess.run([sys.executable, "-c", script, str(journals.folder)], check=False)
        assert run.returncode == -signal.SIGKILL
        assert journals.abandoned() == ["token"]
        assert journals.read("token") == [Record(DeliveryId(1, 5))]
        journals.discard("token")
        assert journals.abandoned() == []

    def test_one_folder_is_one_host(self, journals: Journals, tmp_path: Path) -> None:
        assert Journals(journals.folder).host == journals.host
        assert Journals(tmp_path / "elsewhere").host != journals.host
        assert sorted(path.name for path in journals.folder.iterdir()) == ["host"]


class TestTrouble:
    def test_an_entry_counts_once_the_length_covers_it(self, journals: Journals, journal: Journal) -> None:
        journal.begin(DeliveryId(1, 1), NOTHING)
        whole = len((journals.folder / "token.journal").read_bytes())
        with (journals.folder / "token.journal").open("r+b") as file:
            file.seek(ENTRIES_AT + len("[1,1,0]\n"))
            file.write(b"[1,2")  # killed in the middle of writing
        assert journals.read("token") == [Record(DeliveryId(1, 1))]
        assert whole == len((journals.folder / "token.journal").read_bytes())

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            pytest.param(
                b"something else altogether, and long enough to hold a header", "not a journal", id="foreign"
            ),
        ],
    )
    def test_a_broken_one_is_told_and_kept(self, journals: Journals, content: bytes, said: str) -> None:
        (journals.folder / "token.journal").write_bytes(content)
        with pytest.raises(JournalBroken, match=said):
            journals.read("token")
        kept = journals.set_aside("token")
        assert kept.read_bytes()[:9] == content[:9]
        assert journals.abandoned() == []

    def test_nonsense_inside_is_told(self, journals: Journals) -> None:
        journal = journals.open("token", 1)
        journal.begin(DeliveryId(1, 1), NOTHING)
        path = journals.folder / "token.journal"
        with path.open("r+b") as file:
            file.seek(ENTRIES_AT)
            file.write(b"[x")
            file.seek(LENGTH_AT)
            file.write(LENGTH.pack(8))
        with pytest.raises(JournalBroken, match="cannot be read"):
            journals.read("token")
        journal.close()

    def test_a_full_disk_is_met_before_anything_is_sent(
        self, journals: Journals, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_file: int, _offset: int, _length: int) -> None:
            raise OSError(28, os.strerror(28))

        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(JournalBroken, match=r"No space left on device.*engine\.journal"):
            journals.open("token", 1)
        assert sorted(path.name for path in journals.folder.iterdir()) == ["host"]

    def test_a_folder_that_cannot_be_made_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(JournalBroken, match=r"engine\.journal"):
            assert Journals(tmp_path / "file" / "journal").host
