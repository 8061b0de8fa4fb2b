"""Which delivery a mail belongs to, told by what came back: its Message-ID, or the address that its bounce was sent to.

A bounce is a mail that anybody may write. So the envelope's sender of each delivery is an address of its own (VERP),
`bounce+<issue>.<number>.<resend>-<mark>@bounces.example.com`, and the mark is a keyed hash that nobody else can make.
"""

import hashlib
import hmac
import re

from distributor.model import DeliveryId
from distributor.settings import Settings

#: Bytes of the mark: 2^48 guesses for one delivery, each of them a mail to us.
MARK_BYTES = 6
MESSAGE_ID = re.compile(r"<?(\d{1,18})\.(\d{1,9})\.(\d{1,9})\.[0-9a-f]{24}@[^\s<>@]+>?")


def delivery_of_message_id(message_id: str) -> DeliveryId | None:
    """The delivery that a Message-ID of ours names (see mime.py); None for one that is not ours."""
    found = MESSAGE_ID.fullmatch(message_id.strip())
    return DeliveryId(int(found[1]), int(found[2]), int(found[3])) if found else None


class BounceAddresses:
    """One envelope sender a delivery, below `address`; `key` is a secret of any length."""

    def __init__(self, address: str, key: str) -> None:
        self._name, _, self._domain = address.rpartition("@")
        # Keyed BLAKE2 is a MAC by itself, at half the price of HMAC-SHA256: one is made for each mail.
        self._keyed = hashlib.blake2b(key=hashlib.sha256(key.encode()).digest(), digest_size=MARK_BYTES)
        # A mail server may write an address in any case, and quote it in any place.
        found = rf"{re.escape(self._name)}\+(\d{{1,18}})\.(\d{{1,10}})\.(\d{{1,9}})-([0-9a-f]{{{2 * MARK_BYTES}}})@{re.escape(self._domain)}"
        self._written = re.compile(found.encode(), re.IGNORECASE)

    def of(self, identity: DeliveryId) -> str:
        """The envelope's sender for a delivery."""
        written = str(identity)
        return f"{self._name}+{written}-{self._mark(written)}@{self._domain}"

    def delivery_in(self, text: bytes) -> DeliveryId | None:
        """The delivery whose address stands in a text, with a mark that is ours; None without, or of several."""
        genuine = {
            DeliveryId(int(issue), int(seq), int(resend))
            for issue, seq, resend, mark in self._written.findall(text)
            if hmac.compare_digest(
                self._mark(b".".join((issue, seq, resend)).decode()), mark.decode().lower()
            )
        }
        return genuine.pop() if len(genuine) == 1 else None

    def _mark(self, written: str) -> str:
        keyed = self._keyed.copy()
        keyed.update(written.encode())
        return keyed.hexdigest()


def bounce_addresses(settings: Settings) -> BounceAddresses | None:
    """Those of `[events.bounces]`; None when the newsletter's sender stands in the envelope."""
    table = settings.events.bounces
    return BounceAddresses(table.address, table.key.get_secret_value()) if table.address else None
