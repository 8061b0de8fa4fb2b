"""The whole pipeline against the sandbox: what `rehearse` and `demo` share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr

from distributor.audience import Given, ImportOrder, Line, Segment
from distributor.bootstrap import Distributor, build, prepare
from distributor.dispatch import segment_of
from distributor.model import SubscriptionState
from distributor.sandbox.server import Sandbox
from distributor.settings import Database, Newsletter, Settings, Smtp, WechatAccount, wechat_names

#: Not secrets: the sandbox takes any token and key of the right shape.
SANDBOX_TOKEN = "1:sandbox-token-of-no-bot"  # noqa: S105
SANDBOX_KEY = "00000000-0000-4000-8000-{:012x}"
PAGE = 1000


def into_sandbox(settings: Settings, sandbox: Sandbox, database: Path) -> Settings:
    """The same settings, sending to the sandbox and writing into a database of its own."""
    robots = {route.robot for route in settings.operator.routes if route.robot}
    for newsletter in settings.newsletters.values():
        robots |= newsletter.robots
    accounts = wechat_names(settings.newsletters)
    telegram = settings.telegram.model_copy(
        update={"api": sandbox.url, "proxy": "", "token": SecretStr(SANDBOX_TOKEN)}
    )
    return settings.model_copy(
        update={
            "database": Database(url=SecretStr(f"sqlite:///{database}")),
            "broker": settings.broker.model_copy(update={"url": SecretStr("")}),
            # Nobody got it, so it has not gone out: no page of it.
            "site": settings.site.model_copy(update={"folder": ""}),
            # The real sent log must not learn of what nobody received.
            "engine": settings.engine.model_copy(update={"journal": str(database.parent / "journal")}),
            "email": settings.email.model_copy(
                update={"smtp": Smtp(host="127.0.0.1", port=sandbox.smtp_port), "relays": ()}
            ),
            "telegram": telegram,
            "wecom": settings.wecom.model_copy(update={"api": sandbox.url}),
            "wecom_keys": {
                name: SecretStr(SANDBOX_KEY.format(number)) for number, name in enumerate(sorted(robots), 1)
            },
            "wechat": settings.wechat.model_copy(update={"api": sandbox.url}),
            "wechat_accounts": {
                name: WechatAccount(appid=f"wx{number:016x}", secret=SecretStr(f"{number:032x}"))
                for number, name in enumerate(accounts, 1)
            },
        }
    )


@contextmanager
def rehearsal(settings: Settings, sandbox: Sandbox, database: Path) -> Iterator[Distributor]:
    """Everything, built for the sandbox."""
    distributor = build(into_sandbox(settings, sandbox, database))
    try:
        prepare(distributor)
        yield distributor
    finally:
        distributor.close()


def unfiltered(newsletter: Newsletter) -> Newsletter:
    """The newsletter for everybody who was copied: the filters chose them before, by tags that are not copied."""
    tables = newsletter.channel_settings
    kept = {
        name: table.model_copy(update={"filter": ""}) if getattr(table, "filter", "") else table
        for name, table in tables
    }
    audience = newsletter.audience.model_copy(update={"filter": ""})
    return newsletter.model_copy(
        update={"audience": audience, "channel_settings": tables.model_copy(update=kept)}
    )


def copy_audience(
    source: Distributor, target: Distributor, newsletter: Newsletter, filter_text: str = ""
) -> int:
    """Copies those who would get an issue now; returns how many."""
    return sum(
        _copy(source, target, newsletter.slug, channel, segment_of(newsletter, channel, filter_text))
        for channel in newsletter.channels
    )


def _copy(source: Distributor, target: Distributor, newsletter: str, channel: str, segment: Segment) -> int:
    copied, after = 0, 0
    while page := source.audience.listing(
        newsletter, channel=channel, segment=segment, after=after, limit=PAGE
    ):
        after = page[-1].subscriber_id
        going = [item for item in page if item.state is SubscriptionState.ACTIVE and not item.suppressed]
        lines = [
            Line(number, item.address, channel=item.channel, name=item.name)
            for number, item in enumerate(going, copied + 1)
        ]
        order = ImportOrder(newsletter=newsletter, origin="rehearsal")
        target.audience.import_lines(order, [Given(lines)])
        copied += len(going)
    return copied
