"""How the stories' refusals are told to a program."""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from fastapi import Request
from fastapi.routing import APIRoute

from distributor.audience import normalise
from distributor.errors import RequestRefused
from distributor.sentlog import SentLogBroken
from distributor.web.problems import Problem, Wrong

log = logging.getLogger(__name__)

#: Of the parameters that are none, so many are named, each with so many characters.
MOST, LONGEST = 5, 60


def not_found(what: str) -> Problem:
    return Problem("not-found", f"there is no such {what}")


def wrong_field(name: str, detail: str, *, parameter: bool = False) -> Problem:
    wrong = Wrong(detail=detail, parameter=name) if parameter else Wrong(f"#/{name}", detail)
    return Problem("wrong-fields", "nothing was done; `errors` says what to mend", [wrong])


def no_other_parameters(request: Request) -> None:
    """A dependency of every call: a filter that is misspelt must not mean "all". Raises Problem."""
    route: APIRoute = request.scope["route"]
    known = {field.alias for field in route.dependant.query_params}
    if others := sorted(set(request.query_params) - known):
        detail = (
            f"no parameter of this call; there are: {', '.join(sorted(known))}"
            if known
            else "this call has none"
        )
        raise Problem(
            "wrong-fields",
            "nothing was done",
            [Wrong(detail=detail, parameter=name[:LONGEST]) for name in others[:MOST]],
        )


@contextmanager
def refused(sort: str) -> Iterator[None]:
    """What a story must not do ends the call with a problem of this sort."""
    try:
        yield
    except RequestRefused as error:
        raise Problem(sort, " ".join(str(error).split())) from None
    except SentLogBroken as error:
        log.warning("sent_log_broken: %s", error)  # its path is nothing for a caller
        raise Problem(sort, "a sent log of this host cannot be written; the program's log says why") from None


def address_of(channel: str, address: str, *, parameter: bool = False) -> str:
    """An address in its one spelling. Raises Problem for what cannot be one."""
    try:
        return normalise(channel, address)
    except RequestRefused:
        raise wrong_field("address", f"no address of the channel {channel}", parameter=parameter) from None


def known_channel(known: Collection[str], channel: str) -> None:
    """Raises Problem for another one."""
    if channel not in known:
        raise wrong_field("channel", f"no such channel; there are: {', '.join(known)}")
