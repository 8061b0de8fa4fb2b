"""What speaks against sending a post, before anything exists."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date

from distributor.dispatch.engine import Engine
from distributor.errors import PostError
from distributor.model import Message, Post
from distributor.preflight import Finding, NotFit, Severity, examine, read_proof
from distributor.settings import Newsletter

log = logging.getLogger(__name__)

Tell = Callable[[Finding], None]


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
        hosted = engine.host_pictures(post, fetch=fetch)
    except PostError as error:
        refusals.append(error)
    for name in newsletter.channels if channels is None else channels:
        try:
            messages += engine.channels[name].render(hosted, newsletter)
        except PostError as error:
            refusals.append(error)
    return Inspection(messages, findings_of(engine, newsletter, post, day, messages, refusals))


def findings_of(
    engine: Engine,
    newsletter: Newsletter,
    post: Post,
    day: date,
    messages: Sequence[Message],
    refusals: Sequence[PostError] = (),
) -> Sequence[Finding]:
    """What the checks say of a post that is rendered already."""
    proof = read_proof(post, newsletter, day, engine.facts(newsletter, post, day), messages)
    return examine(proof, refusals)


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
