"""The stories: open an issue, write its audience down, drain what is due, resend, sweep. Collaborators are arguments."""

from distributor.dispatch.calling import Caller
from distributor.dispatch.draining import drain
from distributor.dispatch.engine import Engine, Policy, Stop, placeholder_values
from distributor.dispatch.inspecting import Inspection, findings_of, inspect, inspect_to_send, tell_warnings
from distributor.dispatch.letters import PostRoom
from distributor.dispatch.opening import (
    AudienceHeld,
    guard_audience,
    open_issue,
    planned_sizes,
    render,
    segment_of,
    takes_subscribers,
    write_audience,
)
from distributor.dispatch.persons import Forgotten, forget, record_of_person
from distributor.dispatch.reconciling import reconcile
from distributor.dispatch.resending import ResendPlan, plan_resend, resend
from distributor.dispatch.steering import cancel, pause, refuse_over, resume
from distributor.dispatch.subscribing import Reception, Request
from distributor.dispatch.sweeping import Swept, sweep
from distributor.dispatch.test_send import test_send
from distributor.dispatch.todays import Today, newest_issues, send_copy, send_today, todays_issue

__all__ = [
    "AudienceHeld",
    "Caller",
    "Engine",
    "Forgotten",
    "Inspection",
    "Policy",
    "PostRoom",
    "Reception",
    "Request",
    "ResendPlan",
    "Stop",
    "Swept",
    "Today",
    "cancel",
    "drain",
    "findings_of",
    "forget",
    "guard_audience",
    "inspect",
    "inspect_to_send",
    "newest_issues",
    "open_issue",
    "pause",
    "placeholder_values",
    "plan_resend",
    "planned_sizes",
    "reconcile",
    "record_of_person",
    "refuse_over",
    "render",
    "resend",
    "resume",
    "segment_of",
    "send_copy",
    "send_today",
    "sweep",
    "takes_subscribers",
    "tell_warnings",
    "test_send",
    "todays_issue",
    "write_audience",
]
