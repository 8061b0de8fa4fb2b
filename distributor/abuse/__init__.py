"""Sign-up cannot be used as a weapon: limits, a trap, the form's time, disposable addresses, proof of work in an attack."""

from distributor.abuse.attempts import (
    PROOF_FIELD,
    SEAL_FIELD,
    TRAP_FIELD,
    Outcome,
    Reason,
    SignupAttempt,
    SignupForm,
    Verdict,
)
from distributor.abuse.guard import SignupGuard
from distributor.abuse.opening import guard_of

__all__ = [
    "PROOF_FIELD",
    "SEAL_FIELD",
    "TRAP_FIELD",
    "Outcome",
    "Reason",
    "SignupAttempt",
    "SignupForm",
    "SignupGuard",
    "Verdict",
    "guard_of",
]
