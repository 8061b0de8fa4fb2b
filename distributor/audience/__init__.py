"""Who could get an issue: subscribers, their subscriptions with consent evidence, and suppressions."""

from distributor.audience.addresses import domain_of, fingerprint, masked, mention, normalise
from distributor.audience.chats import CONNECT_WITHIN, Chat, Chats, Linked, Overtaken, Word
from distributor.audience.describing import Changes, Description
from distributor.audience.exports import Export, Exported, write_csv, write_json
from distributor.audience.imports import Imports, in_batches, read_csv
from distributor.audience.persons import Persons, Trace
from distributor.audience.preferences import Place, Preferences
from distributor.audience.query import active, behind, of_domains
from distributor.audience.records import Record, Records, SubscriptionRecord, Wanted
from distributor.audience.segments import Segment, of_issue
from distributor.audience.signups import CONFIRM_EVERY, CONFIRM_WITHIN
from distributor.audience.subscriptions import Subscriptions
from distributor.audience.suppressions import Suppressions
from distributor.audience.values import (
    Answer,
    Asked,
    AudienceQuery,
    Evidence,
    ImportReport,
    NewSubscriber,
    Received,
    SignUp,
    Subscription,
    Visit,
)


class Audience(Chats, Subscriptions, Suppressions, Imports, Persons, Records):
    """Subscribers and their subscriptions in one database."""


__all__ = [
    "CONFIRM_EVERY",
    "CONFIRM_WITHIN",
    "CONNECT_WITHIN",
    "Answer",
    "Asked",
    "Audience",
    "AudienceQuery",
    "Changes",
    "Chat",
    "Description",
    "Evidence",
    "Export",
    "Exported",
    "ImportReport",
    "Linked",
    "NewSubscriber",
    "Overtaken",
    "Place",
    "Preferences",
    "Received",
    "Record",
    "Segment",
    "SignUp",
    "Subscription",
    "SubscriptionRecord",
    "Trace",
    "Visit",
    "Wanted",
    "Word",
    "active",
    "behind",
    "domain_of",
    "fingerprint",
    "in_batches",
    "masked",
    "mention",
    "normalise",
    "of_domains",
    "of_issue",
    "read_csv",
    "write_csv",
    "write_json",
]
