"""`distributor demo`: the main job on made-up readers, against the sandbox, in a folder of its own."""

import shutil
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path

from distributor.audience import Given, ImportOrder, Line
from distributor.bootstrap import Distributor
from distributor.dispatch import open_issue, write_audience
from distributor.model import Issue, OpenedBy, Post
from distributor.posts import load_posts
from distributor.rehearsal import rehearsal
from distributor.sandbox.faults import demo_faults
from distributor.sandbox.server import Sandbox
from distributor.settings import Newsletter, Retry, Settings, load_settings, packaged

NEWSLETTER = "ai-daily"
#: Made-up readers whose names decide their fate in the sandbox (sandbox/faults.py).
BLOCKED, SLOWED = range(900100, 900105), range(900200, 900205)
REFUSED, BUSY, LEAVING = 8, 12, 5
#: One reader in ten reads on Telegram.
TELEGRAM_SHARE = 10

Say = Callable[[str], None]
#: Sends what is pending, shows it, and returns the exit status.
Deliver = Callable[[Distributor, Issue], int]


def run(folder: Path, subscribers: int, say: Say, deliver: Deliver, *, program: str) -> int:
    """Imports, opens, delivers; returns the exit status. A second run in the same folder sends nothing.

    `program` is how the reader calls this command.
    """
    settings = demo_settings(folder)
    newsletter = settings.newsletters[NEWSLETTER]
    post = newest_post(settings, newsletter)
    day = post.date.date() if post.date else date.today()  # noqa: DTZ011 - sample posts carry dates
    inbox = folder / "inbox"
    with (
        Sandbox(inbox, faults=demo_faults()) as sandbox,
        rehearsal(settings, sandbox, folder / "var" / "distributor.sqlite3") as distributor,
    ):
        if issue := distributor.ledger.issue_of(newsletter.slug, day):
            say(f"{newsletter.title} {day}: issue {issue.id} was already sent; nothing is sent twice.")
            status = deliver(distributor, issue)
        else:
            say(f"importing {subscribers} made-up readers …")
            order = ImportOrder(newsletter=newsletter.slug, origin="demo")
            report = distributor.audience.import_lines(order, [Given(list(made_up_readers(subscribers)))])
            say(f"{report.added} readers; opening the issue of {day} from {post.path.name} …")
            issue, _ = open_issue(distributor.engine, newsletter, post, day, by=OpenedBy.PERSON)
            write_audience(distributor.engine, issue)
            say(
                f"the audience is frozen; {leave(distributor, newsletter)} readers unsubscribe before it reaches them"
            )
            status = deliver(distributor, issue)
    say(look_around(program, folder, inbox, issue))
    return status


def demo_settings(folder: Path) -> Settings:
    """A project of its own in `folder`, made from the files that come with the package; retries come quickly."""
    for name in ("config", "posts"):
        shutil.copytree(packaged(name), folder / name, dirs_exist_ok=True)
    settings = load_settings(folder, environment={})
    quick = Retry.model_validate({"first": "2s", "longest": "5s", "max_age": "10m"})
    return settings.model_copy(
        update={
            "email": settings.email.model_copy(update={"retry": quick}),
            "telegram": settings.telegram.model_copy(update={"retry": quick}),
            "engine": settings.engine.model_copy(update={"chunk": 100}),
        }
    )


def newest_post(settings: Settings, newsletter: Newsletter) -> Post:
    """The newest sample post."""
    found = load_posts(settings.path(newsletter.posts), newsletter.zone)
    dated: list[tuple[datetime, Post]] = [
        (post.date, post) for post in found.posts if post.date and not post.draft
    ]
    return max(dated, key=lambda pair: pair[0])[1]


def made_up_readers(number: int) -> Iterator[Line]:
    """Addresses by e-mail and Telegram; some of them will be refused, told to come back later, or have blocked the bot."""
    special = [f"refused-{n}@readers.example" for n in range(REFUSED)]
    special += [f"busy-{n}@readers.example" for n in range(BUSY)]
    chats = [str(chat) for chat in (*BLOCKED, *SLOWED)]
    chats += [str(100_000 + n) for n in range(max(0, number // TELEGRAM_SHARE - len(chats)))]
    chats = chats[: number // TELEGRAM_SHARE]
    mails = special + [
        f"reader-{n}@readers.example" for n in range(max(0, number - len(chats) - len(special)))
    ]
    addresses = [("email", address) for address in mails[: number - len(chats)]]
    addresses += [("telegram", chat) for chat in chats]
    for line, (channel, address) in enumerate(addresses, 1):
        yield Line(line, address, channel=channel)


def leave(distributor: Distributor, newsletter: Newsletter) -> int:
    """A few readers use the link of yesterday's mail right now; returns how many."""
    found = distributor.audience.listing(
        newsletter.slug, channel="email", after=REFUSED + BUSY, limit=LEAVING
    )
    for subscription in found:
        distributor.audience.unsubscribe(subscription.token, "the demo's reader left")
    return len(found)


def look_around(program: str, folder: Path, inbox: Path, issue: Issue) -> str:
    """Where to look now."""
    here = Path.cwd()
    short = {path: path.relative_to(here) if path.is_relative_to(here) else path for path in (folder, inbox)}
    return (
        "\nLook around:\n"
        f"  what arrived   {program} sandbox --inbox {short[inbox]}        then open http://127.0.0.1:8026/\n"
        f"  who got what   {program} -C {short[folder]} log {issue.id} --state failed\n"
        f"  the numbers    {program} -C {short[folder]} status {issue.id}"
    )
