"""/api/: what an operator's programs may read and do, each with a token that allows it.

A reader's token, which opens their pages, is in no answer.
"""

from collections.abc import Callable, Sequence
from inspect import getdoc
from typing import Any, NamedTuple

from fastapi import APIRouter, Depends, Security

from distributor.bootstrap import Distributor
from distributor.model import Permission as May
from distributor.web.api.door import Door
from distributor.web.api.issues import IssueCalls
from distributor.web.api.refusing import no_other_parameters
from distributor.web.api.subscribers import SubscriberCalls
from distributor.web.api.telling import EventCalls, WebhookCalls
from distributor.web.describing import described

__all__ = ["operators_router"]

ALWAYS = ("no-token", "not-allowed", "wrong-fields", "unavailable")


class Operation(NamedTuple):
    """A call: which one, what does it, what the token must allow, and how it may end besides."""

    method: str
    path: str
    does: Callable[..., Any]
    may: May
    problems: Sequence[str] = ()


def operators_router(distributor: Distributor) -> APIRouter:
    """The operators' calls."""
    router, door = APIRouter(tags=["operators"]), Door(distributor.access)
    for operation in _operations(distributor):
        description = getdoc(operation.does) or ""
        router.add_api_route(
            f"/api/{operation.path}",
            operation.does,
            methods=[operation.method],
            dependencies=[Security(door, scopes=[operation.may]), Depends(no_other_parameters)],
            responses=described(*ALWAYS, *operation.problems),
            summary=description.partition("\n")[0].removesuffix("."),
            description=description,
            response_description="Here it is, or it is done.",
            operation_id=operation.does.__name__,
        )
    return router


def _operations(distributor: Distributor) -> Sequence[Operation]:
    of, issues, told = SubscriberCalls(distributor), IssueCalls(distributor), WebhookCalls(distributor)
    one, ending, body = ("not-found",), ("not-found", "not-possible"), ("unreadable",)
    person, issue = "subscribers/{number}", "issues/{number}"
    return (
        Operation("GET", "subscribers", of.list_subscribers, May.SUBSCRIBERS_READ),
        Operation("GET", person, of.show_subscriber, May.SUBSCRIBERS_READ, one),
        Operation("GET", f"{person}/export", of.export_person, May.SUBSCRIBERS_READ, one),
        Operation("POST", f"{person}/tags", of.tag_subscription, May.SUBSCRIBERS_WRITE, one + body),
        Operation(
            "DELETE",
            f"{person}/subscriptions/{{newsletter}}",
            of.end_subscription,
            May.SUBSCRIBERS_WRITE,
            one,
        ),
        Operation("DELETE", person, of.forget_person, May.SUBSCRIBERS_WRITE, ending),
        Operation("POST", "suppressions", of.suppress_address, May.SUBSCRIBERS_WRITE, body),
        Operation("GET", "issues", issues.list_issues, May.ISSUES_READ),
        Operation("GET", issue, issues.show_issue, May.ISSUES_READ, one),
        Operation("POST", f"{issue}/pause", issues.pause_issue, May.ISSUES_WRITE, ending),
        Operation("POST", f"{issue}/resume", issues.resume_issue, May.ISSUES_WRITE, ending),
        Operation("POST", f"{issue}/cancel", issues.cancel_issue, May.ISSUES_WRITE, ending),
        Operation("POST", f"{issue}/resend", issues.resend_issue, May.ISSUES_WRITE, ending + body),
        Operation("GET", f"{issue}/deliveries", issues.list_deliveries, May.DELIVERIES_READ, one),
        Operation("GET", "deliveries", issues.list_deliveries_of, May.DELIVERIES_READ),
        Operation("GET", "events", EventCalls(distributor).list_events, May.EVENTS_READ),
        Operation("GET", "webhook-calls", told.list_webhook_calls, May.WEBHOOKS_READ),
    )
