"""`[signup.abuse]`."""

from datetime import timedelta
from typing import Literal

from pydantic import Field

from distributor.settings.fields import Domain, Duration, Frozen, Rate

#: Providers of mailboxes for everybody: their readers are strangers to each other, so that no limit by domain fits them.
MAILBOX_PROVIDERS = (
    *("qq.com", "vip.qq.com", "foxmail.com", "163.com", "126.com", "yeah.net", "188.com", "vip.163.com"),
    *("sina.com", "sina.cn", "sohu.com", "aliyun.com", "139.com", "189.cn", "wo.cn", "21cn.com", "tom.com"),
    *("gmail.com", "googlemail.com", "outlook.com", "hotmail.com", "live.com", "msn.com", "live.cn"),
    *("icloud.com", "me.com", "mac.com", "yahoo.com", "yahoo.co.jp", "ymail.com", "aol.com", "zoho.com"),
    *("proton.me", "protonmail.com", "pm.me", "fastmail.com", "duck.com", "gmx.de", "gmx.net", "web.de"),
    *("t-online.de", "orange.fr", "free.fr", "laposte.net", "mail.ru", "yandex.ru", "yandex.com"),
    *("naver.com", "daum.net", "hanmail.net"),
)


class AbuseSettings(Frozen):
    """`[signup.abuse]`: what keeps the sign-up form from being used against somebody else's mailbox."""

    per_ip: Rate = Field("30/hour", description="sign-ups from one IPv4 address, or one IPv6 network of /64")
    per_address: Rate = Field("5/day", description="sign-ups for one address, over all newsletters")
    per_domain: Rate = Field("60/hour", description="sign-ups for one recipient domain")
    mailbox_providers: tuple[Domain, ...] = Field(
        MAILBOX_PROVIDERS, description="recipient domains without a limit of their own: everybody's"
    )
    disposable: Literal["refuse", "allow"] = Field("refuse", description="addresses that die within the day")
    disposable_add: tuple[Domain, ...] = Field((), description="further domains of such addresses")
    disposable_allow: tuple[Domain, ...] = Field((), description="domains that the list is wrong about")
    quickest: Duration = Field(timedelta(seconds=2), description="no person fills the form in faster")
    form_lasts: Duration = Field(timedelta(hours=4), description="then the form asks once more")
    attack_mode: Literal["auto", "on", "off"] = Field(
        "auto", description="ask for a proof of work: while an alarm lasts, always, or never"
    )
    alarm_address: Rate = Field("3/hour", description="more for one address: a proof of work for this one")
    alarm_network: Rate = Field("40/hour", description="more from one /24 or /48: a proof from this one")
    alarm_overall: Rate = Field("600/hour", description="more in all: a proof of work from everybody")
    alarm_lasts: Duration = Field(timedelta(minutes=30), description="after the last that was too many")
    work: int = Field(
        10_000, ge=1, le=1_000_000, description="PBKDF2 rounds a try; a proof takes 256 tries on average"
    )
    proof_lasts: Duration = Field(timedelta(minutes=30), description="how old a solved challenge may be")
    without_script: Rate = Field(
        "20/hour", description="sign-ups in all without the proof that was asked for"
    )
    without_script_wait: Duration = Field(
        timedelta(seconds=20), description="how long the form must have been open for that"
    )
