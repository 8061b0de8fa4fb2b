"""`python -m tests.quality`: what spam filters say of our mails, as a table for docs/mail-quality.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest does

from mails import mail_of, sample_mails

from .judges import rounded, rspamd, rspamd_symbols, spamassassin

#: What only the test rig causes: no relay in front of it, no DNS, no authentication.
RIG = ("NO_RECEIVED", "NO_RELAYS", "HFILTER_HOSTNAME_UNKNOWN")


def main() -> int:
    rows = ["| mail | bytes | SpamAssassin | rspamd |", "|---|--:|---|---|"]
    with rspamd() as address:
        for name, message in sample_mails().items():
            mail = mail_of(message)
            points = spamassassin(mail)
            score, symbols = rspamd_symbols(address, mail)
            rig = sum(value for rule, value in symbols.items() if rule in RIG)
            rows.append(
                f"| {name} | {len(mail):,} | {sum(points.values()):.1f}: {rounded(points, RIG)} "
                f"| {score - rig:.2f}: {rounded(symbols, RIG)} |"
            )
    sys.stdout.write("\n".join(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
