"""What speaks against sending a post, before anything exists."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date

from distributor.channels import Channel
from distributor.dispatch.engine import Engine
from distributor.errors import DistributorError, PostError
from distributor.model import Message, Post
from distributor.preflight import Finding, NotFit, Severity, examine, in_order, read_proof, refused
from distributor.settings import Newsletter

log = logging.getLogger(__name__)

Tell = Callable[[Finding], None]
#: Characters of an error that nobody foresaw, as people see it.
LONGEST_SAID = 200


@dataclass(frozen=True)
class Inspection:
    """A post as rendered, and everything that was found, errors first."""

    messages: Sequence[Message]
    findings: Sequence[Finding]

    def of(self, severity: Severity) -> Sequence[Finding]:
        return [finding for finding in self.findings if finding.severity is severity]


def inspect(
    engine: Engine,
    newsletter: Newsletter,
    post: Post,
    day: date,
    channels: Collection[str] | None = None,
    *,
    fetch: bool = False,
) -> Inspection:
    """Renders the post on its channels (or on these) and checks it. What a renderer refuses is a finding too.

    With `fetch`, its pictures are fetched and re-hosted first, where that is set.
    """
    messages: list[Message] = []
    refusals: list[PostError] = []
    hosted = post
    try:
        hosted = with_pictures(engine, post, fetch=fetch)
    except PostError as error:
        refusals.append(error)
    for name in newsletter.channels if channels is None else channels:
        try:
            messages += render_on(engine.channels[name], hosted, newsletter)
        except PostError as error:
            refusals.append(error)
    return Inspection(messages, findings_of(engine, newsletter, post, day, messages, refusals))


def with_pictures(engine: Engine, post: Post, *, fetch: bool) -> Post:
    """Raises PostError, as `render_on` does."""
    try:
        return engine.host_pictures(post, fetch=fetch)
    except DistributorError:
        raise
    except Exception as error:
        raise _unforeseen("its pictures cannot be read", post, error) from error


def render_on(channel: Channel, post: Post, newsletter: Newsletter) -> Sequence[Message]:
    """The post on one channel. Raises PostError, also for what a renderer or a template of the operator's did not foresee."""
    try:
        return channel.render(post, newsletter)
    except DistributorError:
        raise
    except Exception as error:
        raise _unforeseen(f"it cannot be shown on {channel.name}", post, error) from error


def _unforeseen(what: str, post: Post, error: Exception) -> PostError:
    """Tells the log where it came from, below what a command line shows: nobody else sees a traceback."""
    log.warning("%s: %s", post.path, what, exc_info=error)
    said = " ".join(str(error).split())[:LONGEST_SAID]
    reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
    advice = "is something unusual in the post, or in a template? distributor --verbose check tells where it comes from"
    return PostError(post.path, f"{what} ({reason}): {advice}")


def findings_of(
    engine: Engine,
    newsletter: Newsletter,
    post: Post,
    day: date,
    messages: Sequence[Message],
    refusals: Sequence[PostError] = (),
) -> Sequence[Finding]:
    """What the checks say of a post that is rendered already. A check that fails is a refusal: nobody knows then."""
    try:
        proof = read_proof(post, newsletter, day, engine.facts(newsletter, post, day), messages)
        return examine(proof, refusals)
    except DistributorError:
        raise
    except Exception as error:
        return in_order(map(refused, (*refusals, _unforeseen("it cannot be checked", post, error))))


def inspect_to_send(
    engine: Engine, newsletter: Newsletter, post: Post, day: date, channels: Collection[str] | None = None
) -> Inspection:
    """Raises NotFit, a PostError, with every error that was found."""
    inspection = inspect(engine, newsletter, post, day, channels, fetch=True)
    if errors := inspection.of(Severity.ERROR):
        raise NotFit(errors)
    return inspection


def tell_warnings(inspection: Inspection, tell: Tell) -> None:
    """To the log, and to whoever is there."""
    for finding in inspection.of(Severity.WARNING):
        log.warning("preflight %s", finding)
        tell(finding)
