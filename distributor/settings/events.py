"""`[events]`: what providers and bounce mails may tell us, and how they prove that it is they."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from distributor.settings.fields import Duration, Frozen, MailAddress

ProviderName = Literal["ses", "mailgun", "sendgrid", "postmark", "resend", "aliyun", "tencent"]
#: Those that prove themselves with a secret we share; it comes from DISTRIBUTOR_<NAME>_SECRET.
SHARED_SECRETS: tuple[ProviderName, ...] = ("mailgun", "postmark", "resend", "aliyun", "tencent")
#: IMAP writes other letters in an encoding of its own.
FolderName = Annotated[str, Field(pattern=r"^[\x20-\x7e]+$")]


class SesEvents(Frozen):
    """`[events.ses]`: Amazon SES, by SNS. The topics are the proof: SNS signs for everybody's topics."""

    topics: tuple[str, ...] = Field((), description="ARNs of the topics that may speak")


class SendgridEvents(Frozen):
    """`[events.sendgrid]`."""

    verification_key: str = Field("", description="the public key of the Event Webhook, as SendGrid shows it")


class SharedSecret(Frozen):
    """`[events.mailgun]` and its like: the secret comes from DISTRIBUTOR_<NAME>_SECRET."""

    secret: SecretStr = SecretStr("")


class BounceMailbox(Frozen):
    """`[events.bounces]`: the mailbox that bounces come back to, and how it is read.

    The key of its addresses comes from DISTRIBUTOR_BOUNCE_KEY, the mailbox's password from DISTRIBUTOR_BOUNCE_PASSWORD.
    """

    address: MailAddress | Literal[""] = Field(
        "",
        description="every delivery's envelope sender is made from it: bounce+<delivery>@…; empty: the sender's",
    )
    key: SecretStr = SecretStr("")
    host: str = Field("", description="IMAP server; empty: no mailbox is read")
    port: int = Field(993, ge=1, le=65535)
    security: Literal["tls", "none"] = "tls"
    username: str = ""
    password: SecretStr = SecretStr("")
    folder: FolderName = "INBOX"
    done: FolderName = Field("Processed", description="folder that what was read is moved into")
    every: Duration = timedelta(minutes=1)
    timeout: Duration = timedelta(seconds=20)

    @model_validator(mode="after")
    def can_be_proven(self) -> "BounceMailbox":
        """Without a key, whoever writes to the mailbox could end anybody's mail."""
        if self.host and not self.address:
            raise ValueError(
                "events.bounces.host needs `address`: only bounces to such an address are believed"
            )
        if self.address and not self.key.get_secret_value():
            raise ValueError(
                "events.bounces.address needs a key: set DISTRIBUTOR_BOUNCE_KEY (any 32 random characters)"
            )
        if self.folder == self.done:
            raise ValueError("events.bounces.done must be another folder than `folder`")
        return self


class EventsSettings(Frozen):
    """`[events]`."""

    providers: tuple[ProviderName, ...] = Field((), description="those that may call POST /events/<name>")
    oldest: Duration = Field(
        timedelta(hours=24),
        description="age of a signature (Mailgun, SendGrid): as long as a provider may try again",
    )
    ses: SesEvents = SesEvents()
    mailgun: SharedSecret = SharedSecret()
    sendgrid: SendgridEvents = SendgridEvents()
    postmark: SharedSecret = SharedSecret()
    resend: SharedSecret = SharedSecret()
    aliyun: SharedSecret = SharedSecret()
    tencent: SharedSecret = SharedSecret()
    bounces: BounceMailbox = BounceMailbox()

    @model_validator(mode="after")
    def are_proven(self) -> "EventsSettings":
        for name in SHARED_SECRETS:
            if name in self.providers and not getattr(self, name).secret.get_secret_value():
                raise ValueError(f"events.providers names {name}: set DISTRIBUTOR_{name.upper()}_SECRET")
        if "ses" in self.providers and not self.ses.topics:
            raise ValueError("events.providers names ses: list its topics in events.ses.topics")
        if "sendgrid" in self.providers and not self.sendgrid.verification_key:
            raise ValueError("events.providers names sendgrid: set events.sendgrid.verification_key")
        return self
