"""Whether a refusal is the mailbox's or ours. A provider that says "permanent" has only read the code.

QQ answers 550 to "too fast", and an address that is suppressed for that is lost for good. So where the receiving
server's own words are told, they are read as those of a server that we spoke to ourselves (channels/email/replies.py).
"""

import re

from distributor.channels.email.replies import classify
from distributor.errors import Kind, Rejected, Scope
from distributor.model import Permanence

REPLY = re.compile(r"\b([45]\d\d)\b")
STATUS = re.compile(r"\b([45])\.\d{1,3}\.\d{1,3}\b")
OURS = frozenset({Kind.POLICY, Kind.THROTTLE, Kind.CONTENT, Kind.CONFIG})


def judge(claimed: Permanence, said: str, address: str) -> Permanence:
    """How long a refusal lasts: what the provider claims, corrected by what the receiving server said."""
    code = reply_code(said)
    if not code or claimed is Permanence.POLICY:
        return claimed
    error = classify(code, re.sub(r"^\s*smtp;\s*", "", said), address.rpartition("@")[2])
    if error.kind in OURS and not (error.kind is Kind.POLICY and error.scope is Scope.RECIPIENT):
        return Permanence.POLICY
    if claimed is Permanence.PERMANENT and not isinstance(error, Rejected):
        return Permanence.TEMPORARY  # a permanent code whose words ask for another day
    return claimed


def judge_words(said: str, address: str) -> Permanence:
    """The same where nobody claims anything: permanent only when the words say that there is no such mailbox."""
    error = classify(reply_code(said) or 550, said, address.rpartition("@")[2])
    if isinstance(error, Rejected) and error.suppress:
        return Permanence.PERMANENT
    ours = error.kind in OURS and not (error.kind is Kind.POLICY and error.scope is Scope.RECIPIENT)
    return Permanence.POLICY if ours else Permanence.TEMPORARY


def reply_code(said: str) -> int | None:
    """The SMTP reply code in a text; one that only has an enhanced code stands for x50."""
    if found := REPLY.search(said):
        return int(found[1])
    found = STATUS.search(said)
    return int(found[1]) * 100 + 50 if found else None
