"""What somebody tried, and what becomes of it."""

from dataclasses import dataclass
from enum import StrEnum

#: The form's fields beside the reader's own. The trap's name invites programs that fill in whatever they find.
SEAL_FIELD, PROOF_FIELD, TRAP_FIELD = "seal", "proof", "homepage"


@dataclass(frozen=True, kw_only=True)
class SignupAttempt:
    """One try to join, as it came in.

    ip: the client's address, as web/client.py found it; empty: unknown, and then all of those share one limit.
    address: the e-mail address, checked for its form already.
    newsletter: for the log.
    seal, proof, trap: the fields of the form, as they came; empty when there were none.
    signed: by a signed webhook. Then there is no form, and the IP is the caller's: neither is judged.
    """

    ip: str
    address: str
    newsletter: str = ""
    seal: str = ""
    proof: str = ""
    trap: str = ""
    signed: bool = False


class Outcome(StrEnum):
    """What to do with an attempt.

    ALLOWED: go on.
    LIMITED: answer 429 with Retry-After.
    CHALLENGE: show the form once more, as `SignupGuard.form(ip, insist=True)` has it: one more step for a person.
    REFUSED: say why: the address lives for a day.
    DROPPED: answer as if it were allowed, and do nothing: it was a program.
    """

    ALLOWED = "allowed"
    LIMITED = "limited"
    CHALLENGE = "challenge"
    REFUSED = "refused"
    DROPPED = "dropped"


class Reason(StrEnum):
    """Why not at once. Each depends on what was sent and how often, never on who is subscribed: it is no oracle."""

    IP = "ip"
    ADDRESS = "address"
    DOMAIN = "domain"
    FORM = "form"
    ATTACK = "attack"
    DISPOSABLE = "disposable"
    TRAP = "trap"


@dataclass(frozen=True)
class Verdict:
    """`retry_after`: whole seconds, 1 or more with LIMITED, else 0."""

    outcome: Outcome
    reason: Reason | None = None
    retry_after: int = 0

    @property
    def allowed(self) -> bool:
        return self.outcome is Outcome.ALLOWED


@dataclass(frozen=True)
class SignupForm:
    """What a form's page carries; templates/web/guard.html.j2 writes it there.

    seal: for the hidden field SEAL_FIELD.
    challenge: JSON for the script, or empty when no proof is asked for.
    wait: seconds after which the form may be sent without the proof.
    """

    seal: str
    challenge: str = ""
    wait: int = 0
