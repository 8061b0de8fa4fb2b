"""Readers come and go: consent, confirmation, letters, links, imports, segments, tokens, webhooks.

Only adds, with defaults: workers of the version before go on beside it.
"""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
UTC = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("subscribers", sa.Column("linked_to", KEY, nullable=True))
    op.add_column("subscribers", sa.Column("asked_at", UTC, nullable=True))
    op.add_column("subscribers", sa.Column("heard_at", UTC, nullable=True))
    op.create_index("ix_subscribers_linked_to", "subscribers", ["linked_to"])
    op.add_column("issue_channels", sa.Column("filters", sa.Text(), nullable=True))
    op.add_column("subscriptions", sa.Column("import_id", KEY, nullable=True))
    op.add_column("suppressions", sa.Column("import_id", KEY, nullable=True))
    op.add_column("events", sa.Column("permanence", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("code", sa.Text(), nullable=True))
    op.create_index("ix_events_address_channel", "events", ["address", "channel"])
    op.create_index("ix_events_issue_id_kind", "events", ["issue_id", "kind"])
    op.create_table(
        "consents",
        sa.Column("id", KEY, nullable=False),
        sa.Column("subscriber_id", KEY, nullable=False),
        sa.Column("newsletter", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", UTC, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("ip", sa.Text(), nullable=True),
        sa.Column("wording", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("import_id", KEY, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consents")),
    )
    op.create_index("ix_consents_subscriber_id", "consents", ["subscriber_id"])
    op.create_table(
        "consent_texts",
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("first_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_consent_texts")),
    )
    op.create_table(
        "links",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("subscriber_id", KEY, nullable=False),
        sa.Column("newsletter", sa.Text(), nullable=True),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("expires_at", UTC, nullable=False),
        sa.Column("used_at", UTC, nullable=True),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_links")),
    )
    op.create_index("ix_links_subscriber_id", "links", ["subscriber_id"])
    op.create_index("ix_links_expires_at", "links", ["expires_at"])
    op.create_table(
        "letters",
        sa.Column("id", KEY, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subscriber_id", KEY, nullable=False),
        sa.Column("newsletter", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("due_at", UTC, nullable=True),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("sent_at", UTC, nullable=True),
        sa.Column("relay", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_letters")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_letters_due_at", "letters", ["due_at"])
    op.create_index("ix_letters_subscriber_id", "letters", ["subscriber_id"])
    op.create_table(
        "subscription_tags",
        sa.Column("subscription_id", KEY, nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("subscription_id", "tag", name=op.f("pk_subscription_tags")),
    )
    op.create_table(
        "subscription_attributes",
        sa.Column("subscription_id", KEY, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("subscription_id", "name", name=op.f("pk_subscription_attributes")),
    )
    op.create_table(
        "issue_segments",
        sa.Column("issue_id", KEY, nullable=False),
        sa.Column("subscriber_id", KEY, nullable=False),
        sa.PrimaryKeyConstraint("issue_id", "subscriber_id", name=op.f("pk_issue_segments")),
    )
    op.create_table(
        "inbox",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body_hash", sa.Text(), nullable=False),
        sa.Column("received_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("source", "key", name=op.f("pk_inbox")),
    )
    op.create_index("ix_inbox_received_at", "inbox", ["received_at"])
    op.create_table(
        "imports",
        sa.Column("id", KEY, nullable=False),
        sa.Column("newsletter", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("started_at", UTC, nullable=False),
        sa.Column("finished_at", UTC, nullable=True),
        sa.Column("undone_at", UTC, nullable=True),
        sa.Column("counts", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_imports")),
    )
    op.create_table(
        "old_links",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("subscription_id", KEY, nullable=False),
        sa.Column("import_id", KEY, nullable=True),
        sa.PrimaryKeyConstraint("hash", "subscription_id", name=op.f("pk_old_links")),
    )
    op.create_index("ix_old_links_subscription_id", "old_links", ["subscription_id"])
    op.create_table(
        "api_tokens",
        sa.Column("id", KEY, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("last_used_at", UTC, nullable=True),
        sa.Column("revoked_at", UTC, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_tokens")),
        sa.UniqueConstraint("hash", name=op.f("uq_api_tokens_hash")),
    )
    op.create_table(
        "webhook_calls",
        sa.Column("id", KEY, nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("due_at", UTC, nullable=True),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("sent_at", UTC, nullable=True),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_calls")),
        sa.UniqueConstraint("endpoint", "event_id", name=op.f("uq_webhook_calls_endpoint_event_id")),
    )
    op.create_index("ix_webhook_calls_endpoint_due_at", "webhook_calls", ["endpoint", "due_at"])
    op.create_table(
        "installation",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_installation")),
    )
    op.execute(
        sa.text("INSERT INTO installation (name, value) VALUES ('key', :key)").bindparams(
            key=secrets.token_urlsafe(32)
        )
    )
