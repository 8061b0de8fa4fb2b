"""The statements of the hot path on PostgreSQL, where one statement a slice is worth its length.

Measured: as eight statements (fence, results, due rows, intents, counters, begin and commit) a turn costs the worker about
three times as much processor time, and each of them is a wait for the server.
"""

import re
from collections.abc import Mapping

from sqlalchemy import text


def _for_the_driver(statement: str) -> str:
    """On one line, with the driver's placeholders: it keeps its analysis of statements up to 4096 characters, no longer."""
    return re.sub(r":([a-z]+)\b", r"%(\1)s", " ".join(statement.split()))


#: The fields of a result (journal.as_json) that are written, with their types.
RESULT_TYPES: Mapping[str, str] = {
    "seq": "integer",
    "state": "text",
    "reason": "text",
    "counts": "boolean",
    "parts_sent": "integer",
    "receipts": "json",
    "code": "text",
    "text": "text",
    "started_at": "timestamptz",
    "duration_ms": "integer",
    "retry_in": "double precision",
    "relay": "text",
}

# Results as one JSON value: an array a column costs five times as much to hand over.
_RESULT = f"""
    result AS (
        SELECT * FROM json_to_recordset(CAST(:results AS json))
        AS result({", ".join(f"{name} {kind}" for name, kind in RESULT_TYPES.items())})
    )"""  # noqa: S608 - the names are those of the table above

# Bounded by numbers as well as joined: on a table that is not analysed yet the planner would rather read all of it.
# `coalesce` hides the state from it: it takes "sending" for one row in a table, and compares every row with every result.
_SETTLED = """
    settled AS (
        UPDATE deliveries AS d SET
            state = result.state, reason = result.reason,
            tries = d.tries + CASE WHEN result.counts IS FALSE THEN 0 ELSE 1 END,
            attempts = d.attempts + 1, parts_sent = result.parts_sent,
            receipts = CAST(result.receipts AS text), code = result.code, text = result.text,
            due_at = held.now + result.retry_in * interval '1 second',
            first_try_at = coalesce(d.first_try_at, result.started_at), updated_at = held.now
        FROM result, held
        WHERE d.issue_id = :issue AND d.seq BETWEEN :first AND :last
            AND d.seq = result.seq AND coalesce(d.state = 'sending', false)
        RETURNING d.seq, d.state, d.attempts, d.resend, d.resend_id,
                  d.first_try_at, d.due_at
    )"""

_LOG = """
    INSERT INTO attempts (issue_id, seq, number, resend, resend_id, trigger, outcome, code, text, receipts,
                          parts_sent, started_at, duration_ms, retry_at, worker, relay)
    SELECT :issue, settled.seq, settled.attempts, settled.resend, settled.resend_id,
           CASE WHEN settled.first_try_at <> result.started_at THEN 'retry'
                WHEN settled.resend_id IS NULL THEN 'scheduled' ELSE 'resend' END,
           settled.state, result.code, result.text, CAST(result.receipts AS text), result.parts_sent,
           result.started_at, result.duration_ms, settled.due_at, :worker, result.relay
    FROM settled JOIN result USING (seq)"""

#: Results of deliveries that are being sent, with their attempts; :now is the database's time.
SETTLE = text(f"WITH held AS (SELECT CAST(:now AS timestamptz) AS now), {_RESULT}, {_SETTLED} {_LOG}")

# `held` locks the chunk. Having waited for its lock, the statement goes on with the rows it saw before; an update then
# looks at the row as it is by now, so that nothing is begun that somebody has cancelled meanwhile.
_HELD = """
    held AS MATERIALIZED (
        SELECT chunk.id, chunk.lo, chunk.hi, issue.newsletter, clock.now,
               NOT issue.paused AND issue.state IN ('opening', 'sending') AS going
        FROM chunks AS chunk JOIN issues AS issue ON issue.id = chunk.issue_id,
             (SELECT coalesce(CAST(:now AS timestamptz), clock_timestamp()) AS now) AS clock
        WHERE chunk.id = :chunk AND chunk.lease_token = :token AND chunk.lease_until > clock.now
        FOR UPDATE OF chunk
    )"""

_DUE = """
    due AS MATERIALIZED (
        SELECT d.seq, sub.token,
               CASE WHEN sup.id IS NOT NULL THEN 'suppressed'
                    WHEN d.subscriber_id IS NOT NULL AND sub.state IS DISTINCT FROM 'active'
                    THEN 'unsubscribed' END AS skip
        FROM held
        JOIN deliveries AS d ON d.issue_id = :issue AND d.seq > :after AND d.seq <= :hi
        LEFT JOIN subscriptions AS sub
            ON sub.subscriber_id = d.subscriber_id AND sub.newsletter = held.newsletter
        LEFT JOIN suppressions AS sup
            ON sup.channel = d.channel AND sup.address = d.address
            AND d.subscriber_id IS NOT NULL
        WHERE held.going AND d.state = 'pending' AND (d.due_at IS NULL OR d.due_at <= held.now)
        ORDER BY d.seq LIMIT :size
    )"""

_BEGUN = """
    begun AS (
        UPDATE deliveries AS d
        SET state = CASE WHEN due.skip IS NULL THEN 'sending' ELSE 'skipped' END, reason = due.skip,
            updated_at = held.now
        FROM due, held
        WHERE d.issue_id = :issue AND d.seq = due.seq AND d.state = 'pending'
        RETURNING d.seq, d.resend, d.channel, d.address, d.variant,
                  d.subscriber_id, d.destination, d.tries, d.resend_id,
                  d.first_try_at, d.parts_sent, d.receipts, due.token, due.skip
    )"""

_MOVED = """
    moved AS (
        UPDATE chunks SET
            lease_until = held.now + CAST(:lease AS double precision) * interval '1 second',
            pending = chunks.pending + ended.pending - started.sending - started.skipped,
            sending = chunks.sending - ended.total + started.sending,
            sent = chunks.sent + ended.sent,
            failed = chunks.failed + ended.failed,
            unconfirmed = chunks.unconfirmed + ended.unconfirmed,
            skipped = chunks.skipped + started.skipped
        FROM held,
            (SELECT count(*) AS total, count(*) FILTER (WHERE state = 'pending') AS pending,
                    count(*) FILTER (WHERE state = 'sent') AS sent, count(*) FILTER (WHERE state = 'failed') AS failed,
                    count(*) FILTER (WHERE state = 'unconfirmed') AS unconfirmed FROM settled) AS ended,
            (SELECT count(*) FILTER (WHERE skip IS NULL) AS sending, count(*) FILTER (WHERE skip IS NOT NULL) AS skipped
             FROM begun) AS started
        WHERE chunks.id = held.id
    )"""

#: The results of one slice and the intents for the next. One row for each delivery that is begun or skipped; one row of
#: nulls when nothing is due; none when the chunk is not ours, or the lease has run out.
TURN = _for_the_driver(
    f"WITH {_HELD}, {_RESULT}, {_SETTLED}, logged AS ({_LOG}), {_DUE}, {_BEGUN}, {_MOVED} "  # noqa: S608 - no values in it
    "SELECT begun.* FROM held LEFT JOIN begun ON true ORDER BY begun.seq"
)
