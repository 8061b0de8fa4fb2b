"""What an editor wants to know before a post goes out: findings with file, line, and what to do.

    read_proof(post, newsletter, day, facts, messages) ─▶ Proof ─ examine ─▶ findings

Pure, but for reading the post's file once more for the lines of its front matter. `checks.CHECKS` is the table of all
checks; `online` asks the web, and only when somebody wants it.
"""

from distributor.preflight.checks import CHECKS, NAMES, Check, examine, in_order, refused
from distributor.preflight.findings import Finding, NotFit, Severity
from distributor.preflight.proof import Facts, Proof, read_proof, recent_posts

__all__ = [
    "CHECKS",
    "NAMES",
    "Check",
    "Facts",
    "Finding",
    "NotFit",
    "Proof",
    "Severity",
    "examine",
    "in_order",
    "read_proof",
    "recent_posts",
    "refused",
]
