"""The five measurements. Each returns what goes into the JSON file, and prints its tables."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import importing, peers
from bench import render as rendering
from bench import signups as joining
from bench.botapi import BotApi
from bench.ours import Audience, Setup, check, ended_well, measure, near, watch
from bench.processes import BenchError, say
from bench.project import fit_post, installation
from bench.report import (
    Rate,
    active_span,
    allowed_by_round_trips,
    best,
    mean_and_deviation,
    ratios,
    table,
    whole_seconds,
)
from bench.servers import merged
from bench.sink import Sink

Result = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What the command line asked for."""

    setup: Setup
    size: int
    recipients: int | None
    slow_rate: int
    post: Path | None = None


@dataclass(frozen=True)
class Sizes:
    """How many mails each peer sends."""

    source: int
    source_reconnecting: int
    smtplib: int
    celery: int


SMALL = Sizes(source=8_000, source_reconnecting=3_000, smtplib=6_000, celery=2_000)
LARGE = Sizes(source=60_000, source_reconnecting=10_000, smtplib=40_000, celery=10_000)


def quick(plan: Plan) -> Result:
    """Ours and the peers, small, rendering and sign-ups: under two minutes on an idle machine."""
    joined = _signups(plan, levels=(16,), requests=1_500, rounds=2)
    return {**render(plan), "signups": joined, **_compare(plan, plan.recipients or 10_000, SMALL)}


def render(plan: Plan) -> Result:
    """A post becomes messages on every channel: milliseconds, warm."""
    return {"render": rendering.measure(plan.post)}


def imports(plan: Plan) -> Result:
    """A million readers come in, beside a bare COPY of the same file."""
    return {"import": importing.measure(plan.recipients or importing.READERS, durable=plan.setup.durable)}


def ours(plan: Plan) -> Result:
    """Ours alone."""
    with Sink() as sink:
        result = measure(sink, Audience(plan.recipients or 10_000), plan.size, near(plan.setup))
    print(_details(result))
    return {"ours": result}


def full(plan: Plan) -> Result:
    """The ratios at a tenth of the recipients, then all of them: does the rate stay, does memory grow?"""
    recipients = plan.recipients or 1_000_000
    result = _compare(plan, recipients // 10, LARGE)
    with Sink() as sink:
        large = measure(sink, Audience(recipients), plan.size, near(plan.setup), look_while_sending=True)
    print(_details(large))
    print(table(["tenth of the time", "messages/s"], enumerate(large["rate_by_tenths"], 1)))
    looks = [("while sending", look) for look in large["log_seconds_during"]]
    looks.append(("after", large["log_seconds_after"]))
    print(table(["seconds", *looks[-1][1]], [(name, *look.values()) for name, look in looks]))
    return {**result, "flat": large}


def latency(plan: Plan) -> Result:
    """A sink 20 and 50 ms away, 50 connections: how much of what round trips allow?"""
    connections, results, rows = 50, {}, []
    setup = plan.setup
    each = setup.connections or 5
    lanes = setup.lanes or connections // (setup.workers * setup.processes * each)
    # Small chunks: larger ones leave fewer lanes at work towards the end.
    setup = replace(setup, lanes=lanes, connections=each, chunk=setup.chunk or 200)
    for delay, recipients in ((20, 60_000), (50, 30_000)):
        with Sink(delay_ms=delay) as sink:
            found = measure(sink, Audience(plan.recipients or recipients), plan.size, setup)
        one, two = (allowed_by_round_trips(connections, delay, trips) for trips in (1, 2))
        found |= {
            "share_of_one_trip": found["per_second"] / one,
            "share_of_two_trips": found["per_second"] / two,
        }
        results[f"{delay} ms"] = found
        rows.append(
            (
                f"{delay} ms",
                found["connections"],
                found["per_second"],
                f"{found['per_second'] / one:.0%} of {one:,.0f}",
                f"{found['per_second'] / two:.0%} of {two:,.0f}",
            )
        )
    print(table(["away", "connections", "messages/s", "one round trip", "two round trips"], rows))
    return {"latency": results}


def telegram(plan: Plan) -> Result:
    """1,500 private chats against 30 a second: the rate, and how often we were told to wait."""
    readers = plan.recipients or 1_500
    with BotApi() as api, installation(durable=plan.setup.durable) as project:
        system = merged(plan.setup.system(1), {"telegram": {"api": f"http://127.0.0.1:{api.port}"}})
        project.configure(system, {"telegram": {"subscribers": True}})
        project.write_post("issue", 1500)
        project.subscribe("telegram", "#", "", readers)
        workers = project.start_workers(plan.setup.workers, plan.setup.processes)
        begun = time.time_ns()
        sender = project.start("send", "issue", "--wait", "60m")
        watch(sender, lambda: len(api.times), readers)
        ended_well(sender, workers)
        twice = len(api.times) - len(api.chats)
        tally = check(project, "telegram", readers, arrived=len(api.chats), duplicates=twice)
    seconds = (api.times[-1] - api.times[0]) / 1e9
    mean, deviation = mean_and_deviation(whole_seconds(api.seconds))
    result = {
        "messages": len(api.times),
        "per_second": (len(api.times) - 1) / seconds,
        "first_seconds": (api.times[0] - begun) / 1e9,
        "told_to_wait": api.refused,
        "by_second": {"mean": mean, "deviation": deviation, "most": max(api.seconds)},
        "tally": tally,
    }
    print(
        table(
            ["telegram", "messages/s", "429s", "most in a second", "deviation"],
            [(f"{readers:,} chats", result["per_second"], api.refused, max(api.seconds), deviation)],
        )
    )
    return {"telegram": result}


def pace(plan: Plan) -> Result:
    """500 a second for a minute over two workers, a domain with a limit of its own among them: how even is it?"""
    rate, seconds = 500, 60
    readers = plan.recipients or rate * seconds
    slow = plan.slow_rate * readers // rate
    setup = replace(plan.setup, workers=max(2, plan.setup.workers))
    settings: dict[str, Any] = {"rate": rate}
    if slow:
        settings["domains"] = [{"name": "slow", "domains": ["slow.example"], "rate": plan.slow_rate}]
    with Sink() as sink, installation(durable=setup.durable) as project:
        project.configure(merged(setup.system(sink.port), {"email": settings}), {"email": {}})
        fit_post(project, sink, plan.size)
        project.subscribe("email", "reader-#@d%.example", "d%.example", readers - slow, 20)
        project.subscribe("email", "reader-#@slow.example", "slow.example", slow)
        workers = project.start_workers(setup.workers, setup.processes)
        sink.reset()
        sender = project.start("send", "issue", "--wait", "60m")
        watch(sender, lambda: sink.counts().recipients, readers)
        ended_well(sender, workers)
        counts = sink.counts()
        tally = check(project, "email", readers, arrived=counts.unique, duplicates=counts.duplicates)
        histogram, domains = sink.histogram()
    limited = domains.get("slow.example", [0] * len(histogram))
    others = [every - one for every, one in zip(histogram, limited, strict=True)]
    # Beyond the others' last second, the slow domain's tail is no measure of the rate of all.
    groups = {"all": (rate, histogram[: active_span(others)[1]])}
    if slow:
        groups["slow.example"] = (plan.slow_rate, limited)
    found = {name: _evenness(asked, each) for name, (asked, each) in groups.items()}
    print(table(["pace", *found["all"]], [(name, *each.values()) for name, each in found.items()]))
    return {"pace": {**found, "tally": tally, "per_second": histogram, "by_domain": domains}}


def signups(plan: Plan) -> Result:
    """Our sign-up endpoint beside a bare one with as many inserts."""
    return {"signups": _signups(plan, levels=(1, 8, 32), requests=plan.recipients or 2_000, rounds=3)}


def _signups(plan: Plan, levels: Sequence[int], requests: int, rounds: int) -> Result:
    found = joining.measure(
        levels, requests, rounds, durable=plan.setup.durable, settings=plan.setup.settings
    )
    head = [
        "sign-ups: at once",
        "",
        "calls/s",
        "p50, ms",
        "p99, ms",
        "its CPU, µs",
        "PostgreSQL's",
        "ours ÷ bare",
    ]
    rows = [
        (level, name, *each[name].values(), each["ratio"])
        for level, each in found.items()
        for name in ("ours", "bare")
    ]
    print(table(head, rows))
    return found


def _evenness(asked: int, histogram: Sequence[int]) -> dict[str, float]:
    """Over the whole seconds from the first arrival to the last. A limit's burst goes in the first one."""
    begin, end = active_span(histogram)
    seconds = whole_seconds(histogram[begin:end])
    mean, deviation = mean_and_deviation(seconds)
    return {
        "asked": asked,
        "mean": mean,
        "deviation": deviation,
        "least": min(seconds, default=0),
        "most": max(seconds, default=0),
        "from second": begin,
        "seconds": len(seconds),
    }


def _compare(plan: Plan, recipients: int, sizes: Sizes) -> Result:
    """Ours and each peer on one sink, with mails of the size that ours were measured to have."""
    with Sink() as sink:
        found = measure(sink, Audience(recipients), plan.size, near(plan.setup))
        size = found["bytes"]
        attempts: dict[str, Callable[[], list[Rate]]] = {
            "smtp-source -d": lambda: peers.smtp_source_table(sink, size, sizes.source),
            "smtp-source": lambda: [peers.smtp_source(sink, size, sizes.source_reconnecting, 16, keep=False)],
            "smtplib": lambda: [peers.smtplib_rate(sink, size, sizes.smtplib)],
            "celery": lambda: [peers.celery_rate(sink, size, sizes.celery)],
        }
        all_rates = {name: _or_missing(name, attempt) for name, attempt in attempts.items()}
    rates = {name: best(each) for name, each in all_rates.items() if each}
    ours_rate = Rate("ours", found["messages"], found["per_second"], "end to end, with the ledger")
    compared = ratios(ours_rate.per_second, {name: rate.per_second for name, rate in rates.items()})
    rows = [
        (rate.name, rate.messages, rate.per_second, compared.get(name, 1.0), rate.note)
        for name, rate in {"ours": ours_rate, **rates}.items()
    ]
    print(table(["one run, one sink", "messages", "messages/s", "ours ÷ it", "how"], rows))
    print(_details(found))
    return {
        "ours": found,
        "peers": {name: [vars(rate) for rate in each] for name, each in all_rates.items()},
        "ratios": compared,
    }


def _or_missing(name: str, attempt: Callable[[], list[Rate]]) -> list[Rate]:
    """A peer that cannot be had here is told, and left out."""
    try:
        return attempt()
    except BenchError as error:
        say(f"without {name}: {error}")
        return []


def _details(found: Mapping[str, Any]) -> str:
    cpu = found["cpu_us_per_message"]
    memory = found["rss_mib"]
    hot = found["hot_ratio"]
    rows = {
        "recipients": found["messages"],
        "messages/s, first to last arrival": found["per_second"],
        "messages/s, from the command's start": found["per_second_from_start"],
        "first mail after, s": found["first_seconds"],
        "connections at once": found["connections"],
        **{f"CPU of {name}, µs a message": used for name, used in cpu.items()},
        "CPU of all, µs a message": sum(cpu.values()),
        "peak memory of a pool process, MiB": max(memory["pool"], default=0.0),
        "peak memory of a worker's parent, MiB": max(memory["parents"], default=0.0),
        "ledger rows/s": found["ledger_rows_per_second"],
        "ledger rows a message": found["ledger_rows_per_message"],
        "HOT updates of deliveries": "none" if hot is None else f"{hot:.1%}",
        "Redis calls a message": found["redis_calls_per_message"],
        **{f"log: {name}, s": seconds for name, seconds in found["log_seconds_after"].items()},
    }
    return table(["ours", ""], rows.items())


PROFILES: Mapping[str, Callable[[Plan], Result]] = {
    "quick": quick,
    "full": full,
    "latency": latency,
    "telegram": telegram,
    "pace": pace,
    "ours": ours,
    "render": render,
    "signups": signups,
    "import": imports,
}
