"""The tables. Times are aware and UTC."""

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)


class Utc(TypeDecorator[datetime]):
    """An aware time; kept as UTC. SQLite has no zones, so it is stripped there and put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class JsonText(TypeDecorator[Any]):
    """JSON kept as text in the order it was written: a frozen message must read back to the byte."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value, ensure_ascii=False)

    def process_result_value(self, value: str | None, _dialect: Dialect) -> Any:
        if value == "[]":
            return []  # nearly all receipts when a delivery is read: parsing them is a tenth of reading a row
        return None if value is None else json.loads(value)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: SQLite gives out row ids only for INTEGER keys.
Key = BigInteger().with_variant(Integer, "sqlite")

issues = Table(
    "issues",
    metadata,
    Column("id", Key, primary_key=True),
    Column("newsletter", Text, nullable=False),
    Column("local_date", Date, nullable=False),
    Column("extra", Integer, nullable=False),  # 0: the day's issue; 1, 2 …: asked for by name
    Column("slug", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("post_hash", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("opened_by", Text, nullable=False),
    Column("opened_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("approval_deadline", Utc),
    Column("approved_by", Text),
    Column("approved_at", Utc),
    Column("frozen_at", Utc),
    Column("finished_at", Utc),
    Column("hold", Text),  # why nothing may go out until a person has reconciled it
    Column("lease_token", Text),  # who is writing the audience down
    Column("lease_until", Utc),
    UniqueConstraint("newsletter", "local_date", "extra"),  # guarantee 1
    UniqueConstraint("newsletter", "slug"),  # an edited post is the same post
)

issue_channels = Table(
    "issue_channels",
    metadata,
    Column("issue_id", Key, ForeignKey("issues.id"), nullable=False),
    Column("channel", Text, nullable=False),
    Column("planned", Integer, nullable=False),
    Column("filters", JsonText),  # the texts that all hold for its subscribers; None: it is for everybody
    PrimaryKeyConstraint("issue_id", "channel"),
)

messages = Table(
    "messages",
    metadata,
    Column("issue_id", Key, ForeignKey("issues.id"), nullable=False),
    Column("channel", Text, nullable=False),
    Column("variant", Text, nullable=False),
    Column("part", Integer, nullable=False),
    Column("parts", Integer, nullable=False),
    Column("hash", Text, nullable=False),
    Column("content", JsonText, nullable=False),
    Column("placeholders", JsonText, nullable=False),
    PrimaryKeyConstraint("issue_id", "channel", "variant", "part"),
)

chunks = Table(
    "chunks",
    metadata,
    Column("id", Key, primary_key=True),
    Column("issue_id", Key, ForeignKey("issues.id"), nullable=False),
    Column("channel", Text, nullable=False),
    Column("pace_group", Text, nullable=False),
    Column("lo", Integer, nullable=False),
    Column("hi", Integer, nullable=False),
    Column("upto", Key),  # the last subscriber written; a crash while opening resumes behind it
    Column("due_at", Utc),  # None: nothing left to do
    Column("lease_token", Text),
    Column("lease_until", Utc),
    Column("lease_owner", Text),
    Column("lease_host", Text),  # whose journals know what the holder has in hand (journal.py)
    Column("held", Boolean, nullable=False, server_default=false()),  # waits until the canary is judged
    Column("pending", Integer, nullable=False),
    Column("sending", Integer, nullable=False),
    Column("sent", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("unconfirmed", Integer, nullable=False),
    Column("skipped", Integer, nullable=False),
    Index(None, "channel", "due_at"),
    Index(None, "issue_id"),
)

#: In a delivery whose reader is gone, where the subscriber's id was: nobody has it, and a destination has none.
NOBODY = 0

deliveries = Table(
    "deliveries",
    metadata,
    Column("issue_id", Key, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("channel", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("variant", Text, nullable=False),
    Column("subscriber_id", Key),
    Column("destination", Text),
    Column("state", Text, nullable=False),
    Column("reason", Text),  # why it was skipped
    Column("tries", Integer, nullable=False),  # attempts that count against the retry policy
    Column("attempts", Integer, nullable=False),  # all of them: the number of the last attempt row
    Column("resend", Integer, nullable=False),
    Column("resend_id", Key),
    Column("parts_sent", Integer, nullable=False),
    Column("receipts", JsonText, nullable=False),
    Column("code", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("due_at", Utc),  # a retry's time; None: at once
    Column("first_try_at", Utc),
    Column("updated_at", Utc),
    PrimaryKeyConstraint("issue_id", "seq"),
    # One delivery per issue, channel and recipient (guarantee 2); its first column also answers "what did X get?".
    # No index mentions the state: such an index would make every change of state rewrite all of them.
    UniqueConstraint("address", "channel", "issue_id"),
    postgresql_partition_by="RANGE (issue_id)",
)

attempts = Table(
    "attempts",
    metadata,
    Column("issue_id", Key, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("resend", Integer, nullable=False),
    Column("resend_id", Key),
    Column("trigger", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("receipts", JsonText, nullable=False),
    Column("parts_sent", Integer, nullable=False),
    Column("started_at", Utc, nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("retry_at", Utc),
    Column("worker", Text, nullable=False),
    Column("relay", Text),
    PrimaryKeyConstraint("issue_id", "seq", "number"),
    postgresql_partition_by="RANGE (issue_id)",
)

resends = Table(
    "resends",
    metadata,
    Column("id", Key, primary_key=True),
    Column("issue_id", Key, ForeignKey("issues.id"), nullable=False),
    Column("scope", Text, nullable=False),
    Column("channel", Text),
    Column("address", Text),
    Column("reason", Text, nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("asked_at", Utc, nullable=False),
    Column("deliveries", Integer, nullable=False),
)

subscribers = Table(
    "subscribers",
    metadata,
    Column("id", Key, primary_key=True),
    Column("channel", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("domain", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("language", Text),
    Column("created_at", Utc, nullable=False),
    Column("linked_to", Key),  # the e-mail subscriber who connected this chat
    Column(
        "heard_at", Utc
    ),  # when a chat said its last word, by Telegram's clock: what comes late changes nothing
    Column("asked_at", Utc),  # when a confirmation was last asked for: one letter a day
    UniqueConstraint("channel", "address"),
    Index(None, "linked_to"),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("id", Key, primary_key=True),
    Column("subscriber_id", Key, ForeignKey("subscribers.id"), nullable=False),
    Column("newsletter", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("token", Text, nullable=False),  # in the unsubscribe link; short, random, never derived
    Column("source", Text, nullable=False),
    Column("consent_at", Utc, nullable=False),
    Column("activated_at", Utc),
    Column("ended_at", Utc),
    Column("end_reason", Text),
    Column("import_id", Key),  # the import that brought it
    UniqueConstraint("subscriber_id", "newsletter"),
    UniqueConstraint("token"),
    Index(None, "newsletter", "subscriber_id"),
)

suppressions = Table(
    "suppressions",
    metadata,
    Column("id", Key, primary_key=True),
    Column("channel", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("import_id", Key),  # the import that brought it
    UniqueConstraint("channel", "address"),
)

events = Table(
    "events",
    metadata,
    Column("id", Key, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("provider_event_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("newsletter", Text),
    Column("issue_id", Key),
    Column("seq", Integer),
    Column("occurred_at", Utc, nullable=False),
    Column("received_at", Utc, nullable=False),
    Column("detail", Text, nullable=False),
    Column("permanence", Text),  # of a bounce: permanent, temporary, policy
    Column("code", Text),
    UniqueConstraint("provider", "provider_event_id"),
    Index(None, "address", "channel"),
    Index(None, "issue_id", "kind"),
)

ticks = Table(
    "ticks",
    metadata,
    Column("id", Key, primary_key=True),
    Column("newsletter", Text, nullable=False),
    Column("local_date", Date, nullable=False),
    Column("decision", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("first_at", Utc, nullable=False),
    Column("last_at", Utc, nullable=False),
    Column("count", Integer, nullable=False),
    UniqueConstraint("newsletter", "local_date", "decision", "detail"),
)

notices = Table(
    "notices",
    metadata,
    Column("id", Key, primary_key=True),
    Column("key", Text, nullable=False),  # what is told once
    Column("route", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("due_at", Utc, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("sent_at", Utc),
    Column("error", Text, nullable=False),
    UniqueConstraint("key", "route"),
)

relay_days = Table(
    "relay_days",
    metadata,
    Column("relay", Text, nullable=False),
    Column("day", Date, nullable=False),
    Column("taken", Integer, nullable=False),
    PrimaryKeyConstraint("relay", "day"),
)

channel_stops = Table(
    "channel_stops",
    metadata,
    Column("channel", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("stopped_at", Utc, nullable=False),
    Column("until", Utc, nullable=False),
    Column("times", Integer, nullable=False),
)

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("role", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("seen_at", Utc, nullable=False),
    PrimaryKeyConstraint("role", "name"),
)

#: Append only: what a reader agreed to, or took back, when, where, and in which words.
consents = Table(
    "consents",
    metadata,
    Column("id", Key, primary_key=True),
    Column("subscriber_id", Key, nullable=False),
    Column("newsletter", Text, nullable=False),
    Column("kind", Text, nullable=False),  # asked, confirmed, asserted, imported, withdrawn, changed
    Column("at", Utc, nullable=False),
    Column("source", Text, nullable=False),
    Column("ip", Text),
    Column("wording", Text),  # the version of the text that was shown: consent_texts
    Column("detail", Text, nullable=False),
    Column("import_id", Key),
    Index(None, "subscriber_id"),
)

consent_texts = Table(
    "consent_texts",
    metadata,
    Column("version", Text, primary_key=True),  # the first 16 digits of its SHA-256
    Column("language", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("first_at", Utc, nullable=False),
)

#: One-time addresses: to confirm, to connect a Telegram chat. Only a hash of the token is kept.
links = Table(
    "links",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("purpose", Text, nullable=False),
    Column("subscriber_id", Key, nullable=False),
    Column("newsletter", Text),
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("used_at", Utc),
    Index(None, "subscriber_id"),
    Index(None, "expires_at"),
)

#: The outbox of mails to readers outside an issue: confirm, remind, welcome, goodbye.
letters = Table(
    "letters",
    metadata,
    Column("id", Key, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subscriber_id", Key, nullable=False),
    Column("newsletter", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("due_at", Utc),  # None: settled
    Column("created_at", Utc, nullable=False),
    Column("sent_at", Utc),
    Column("relay", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("text", Text, nullable=False),
    Index(None, "due_at"),
    Index(None, "subscriber_id"),
    # A bounce may come when its letter is gone: no number is given twice.
    sqlite_autoincrement=True,
)

subscription_tags = Table(
    "subscription_tags",
    metadata,
    Column("subscription_id", Key, nullable=False),
    Column("tag", Text, nullable=False),
    PrimaryKeyConstraint("subscription_id", "tag"),
)

subscription_attributes = Table(
    "subscription_attributes",
    metadata,
    Column("subscription_id", Key, nullable=False),
    Column("name", Text, nullable=False),
    Column("value", Text, nullable=False),
    PrimaryKeyConstraint("subscription_id", "name"),
)

#: The subscribers an issue with a filter was frozen for; dropped when its windows are written.
issue_segments = Table(
    "issue_segments",
    metadata,
    Column("issue_id", Key, nullable=False),
    Column("subscriber_id", Key, nullable=False),
    PrimaryKeyConstraint("issue_id", "subscriber_id"),
)

#: What came in once must not count twice: sign-up webhooks by their id, updates of the bot.
inbox = Table(
    "inbox",
    metadata,
    Column("source", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("body_hash", Text, nullable=False),
    Column("received_at", Utc, nullable=False),
    PrimaryKeyConstraint("source", "key"),
    Index(None, "received_at"),
)

imports = Table(
    "imports",
    metadata,
    Column("id", Key, primary_key=True),
    Column("newsletter", Text, nullable=False),
    Column("origin", Text, nullable=False),  # csv, listmonk, ghost, mailchimp
    Column("file", Text, nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("started_at", Utc, nullable=False),
    Column("finished_at", Utc),
    Column("undone_at", Utc),
    Column("counts", JsonText, nullable=False),
)

#: Unsubscribe links of the system before: hash of what stands in their address → subscriptions. One link may have
#: belonged to several lists, which are newsletters here.
old_links = Table(
    "old_links",
    metadata,
    Column("hash", Text, nullable=False),
    Column("subscription_id", Key, nullable=False),
    Column("import_id", Key),
    PrimaryKeyConstraint("hash", "subscription_id"),
    Index(None, "subscription_id"),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("id", Key, primary_key=True),
    Column("name", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("scopes", JsonText, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("last_used_at", Utc),
    Column("revoked_at", Utc),
    UniqueConstraint("hash"),
)

#: The outbox of our own webhooks: one row an event and endpoint.
webhook_calls = Table(
    "webhook_calls",
    metadata,
    Column("id", Key, primary_key=True),
    Column("endpoint", Text, nullable=False),
    Column("event_id", Text, nullable=False),  # the webhook-id: the same for every try
    Column("kind", Text, nullable=False),
    Column("body", JsonText, nullable=False),
    Column("state", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("due_at", Utc),  # None: settled
    Column("created_at", Utc, nullable=False),
    Column("sent_at", Utc),
    Column("code", Text, nullable=False),
    Column("text", Text, nullable=False),
    UniqueConstraint("endpoint", "event_id"),
    Index(None, "endpoint", "due_at"),  # one that has been away for long must not slow the others down
)

#: Random values of this installation, made once: keys of hashes and of signed forms.
installation = Table(
    "installation",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
