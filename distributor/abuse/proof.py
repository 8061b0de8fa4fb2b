"""Proof of work: ALTCHA's second scheme (PBKDF2), made by the visitor's browser, checked here, good once."""

import hmac
import json
import time
from collections.abc import Callable
from datetime import timedelta

from altcha import Payload, create_challenge, verify_solution

from distributor.abuse.tally import Tally

ALGORITHM = "PBKDF2/SHA-256"
#: Hex digits that the derived key begins with: each one more is sixteen times the work. Two: 256 tries on average.
PREFIX = "00"
#: Characters of a proof: ours have some 600.
LONGEST = 4000


class Proofs:
    """Challenges of one secret, and proofs that they were solved."""

    def __init__(
        self,
        work: int,
        lasts: timedelta,
        tally: Tally,
        *,
        secret: Callable[[], bytes],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._work, self._lasts = work, lasts.total_seconds()
        self._tally, self._secret, self._clock = tally, secret, clock

    def challenge(self) -> str:
        """A new one, as JSON. Nothing is kept of it: making one costs a signature."""
        challenge = create_challenge(
            ALGORITHM,
            self._work,
            key_prefix=PREFIX,
            expires_at=int(self._clock() + self._lasts),
            hmac_secret=self._key(),
        )
        return json.dumps(challenge.to_dict(), separators=(",", ":"))

    def redeem(self, proof: str) -> bool:
        """Whether this is a fresh proof for a challenge of ours. A second time it is not."""
        if not proof or len(proof) > LONGEST or not _solved(proof, self._key()):
            return False
        parameters = Payload.from_base64(proof).challenge.parameters
        left = (parameters.expires_at or 0) - self._clock()
        return left > 0 and self._tally.mark(f"proof:{parameters.nonce}", left + 1)

    def _key(self) -> bytes:
        return hmac.digest(self._secret(), b"proof", "sha256")


def _solved(proof: str, key: bytes) -> bool:
    """The signature comes first: a forged one costs us no PBKDF2."""
    try:
        return verify_solution(proof, key).verified
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return False  # JSON of shapes that the library does not expect
