"""The tables of `distributor.toml` that are about readers: how they come, and what protects them."""

from datetime import timedelta
from typing import Literal

from pydantic import Field, SecretStr, model_validator

from distributor.settings.abuse import AbuseSettings
from distributor.settings.fields import Duration, Frozen, Name, twice
from distributor.standard_webhooks import key_of


class SignupSource(Frozen):
    """`[[signup.sources]]`: a system that signs readers up by webhook, signed by the rules of Standard Webhooks.

    Its secret comes from DISTRIBUTOR_SIGNUP_<NAME>_SECRET; several, separated by blanks, while one replaces another.
    """

    name: Name
    scope: Literal["confirm", "confirmed"] = Field(
        "confirm",
        description="confirm: the reader gets a mail to confirm; confirmed: the caller vouches for it",
    )
    newsletters: tuple[Name, ...] = Field((), description="that it may sign up for; empty: all")
    secrets: tuple[SecretStr, ...] = ()

    @model_validator(mode="after")
    def secrets_are_whole(self) -> "SignupSource":
        for secret in self.secrets:
            key_of(secret.get_secret_value())
        return self


class Signup(Frozen):
    """`[signup]`: how readers come."""

    form: bool = Field(True, description="whether there is a public page to sign up")
    welcome: bool = Field(True, description="a mail when a subscription begins")
    goodbye: bool = Field(False, description="a mail when it ends")
    remind_after: Duration = Field(
        timedelta(hours=24), description='who has not confirmed by then is asked once more; "0s": never'
    )
    tolerance: Duration = Field(
        timedelta(minutes=5),
        ge=timedelta(seconds=1),
        le=timedelta(
            hours=1
        ),  # the ids of calls are kept for days: a copy is known for what it is until it is too old
        description="how far a webhook's time may be from our clock",
    )
    sources: tuple[SignupSource, ...] = ()
    abuse: AbuseSettings = AbuseSettings()

    @model_validator(mode="after")
    def sources_differ(self) -> "Signup":
        if repeated := twice([source.name for source in self.sources]):
            raise ValueError(f"sources: a name stands there twice: {repeated}")
        keys = [key_of(secret.get_secret_value()) for source in self.sources for secret in source.secrets]
        if len(set(keys)) < len(keys):
            raise ValueError("sources: two secrets are the same: nobody could tell who signed with them")
        return self
