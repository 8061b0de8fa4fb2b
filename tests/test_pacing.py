"""Permits in memory, exactly, and in Redis, shared."""

import multiprocessing
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry
from services import OwnServer

from distributor.pacing import (
    FLOOR,
    FORGET,
    LATELY,
    NOTHING,
    RECOVERY,
    Grant,
    Limit,
    MemoryPacer,
    Pacer,
)
from distributor.pacing_redis import RedisPacer


class Watch:
    """Seconds, moved by the test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def pacer(watch: Watch) -> MemoryPacer:
    return MemoryPacer(watch)


def connect(url: str, timeout: float = 2) -> "redis.Redis":
    """A client as the pacer wants it: it fails fast, and once."""
    return redis.Redis.from_url(
        url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)
    )


@contextmanager
def two_pacers(url: str) -> Iterator[tuple[RedisPacer, RedisPacer]]:
    """As two processes would have them."""
    with connect(url) as one, connect(url) as other:
        yield RedisPacer(one), RedisPacer(other)


def taken(pacer: Pacer, *limits: Limit) -> int:
    """How many permits there are right now."""
    count = 0
    while grant := pacer.reserve(limits, 1000).permits:
        count += grant
    return count


def use(pacer: MemoryPacer, watch: Watch, limit: Limit, rate: float, seconds: float) -> int:
    """Asks for `rate` permits a second, in ten calls a second. Returns what it got."""
    got = 0
    for _ in range(round(seconds * 10)):
        got += pacer.reserve([limit], max(1, round(rate / 10))).permits
        watch.now += 0.1
    return got


class TestMemory:
    def test_one_permit_an_interval(self, pacer: MemoryPacer, watch: Watch) -> None:
        limit = Limit("mail", rate=4)
        assert pacer.reserve([limit]) == Grant(1, 0.0)
        assert pacer.reserve([limit]) == Grant(0, 0.25)
        watch.now += 0.125
        assert pacer.reserve([limit]) == Grant(0, 0.125)
        watch.now += 0.125
        assert pacer.reserve([limit]) == Grant(1, 0.0)

    def test_a_call_gets_as_many_as_the_burst_allows_and_the_wait_for_one(
        self, pacer: MemoryPacer, watch: Watch
    ) -> None:
        limit = Limit("mail", rate=2, burst=5)
        assert pacer.reserve([limit], 3) == Grant(3, 0.0)
        assert pacer.reserve([limit], 3) == Grant(2, 0.0)
        assert pacer.reserve([limit], 3) == Grant(0, 0.5)
        watch.now += 1
        assert pacer.reserve([limit], 3) == Grant(2, 0.0)

    def test_waiting_longer_saves_up_no_more_than_the_burst(self, pacer: MemoryPacer, watch: Watch) -> None:
        limit = Limit("mail", rate=1, burst=3)
        for _ in range(2):
            assert taken(pacer, limit) == 3
            watch.now += 600

    def test_the_tightest_limit_decides_and_all_are_charged_alike(self, pacer: MemoryPacer) -> None:
        bot, chat = Limit("bot", rate=10, burst=10), Limit("chat", rate=1, burst=2)
        assert pacer.reserve([bot, chat], 5) == Grant(2, 0.0)
        assert taken(pacer, bot) == 8

    def test_nothing_is_taken_where_another_limit_refuses(self, pacer: MemoryPacer) -> None:
        bot, chat = Limit("bot", rate=10, burst=10), Limit("chat", rate=1)
        pacer.reserve([chat])
        assert pacer.reserve([bot, chat], 5) == Grant(0, 1.0)
        assert taken(pacer, bot) == 10

    def test_the_longest_wait_is_told(self, pacer: MemoryPacer) -> None:
        fast, slow = Limit("fast", rate=10), Limit("slow", rate=1)
        pacer.reserve([fast, slow])
        assert pacer.reserve([fast, slow]).wait == pacer.reserve([slow, fast]).wait == 1.0

    @pytest.mark.parametrize("limits", [[], [Limit("mail")]])
    def test_without_a_rate_all_may_go(self, pacer: MemoryPacer, limits: Sequence[Limit]) -> None:
        for _ in range(3):
            assert pacer.reserve(limits, 700) == Grant(700, 0.0)

    def test_a_block_holds_its_key_alone_and_the_longer_one_wins(
        self, pacer: MemoryPacer, watch: Watch
    ) -> None:
        pacer.block("chat", 30)
        pacer.block("chat", 5)
        for limit in (Limit("chat"), Limit("chat", 100), Limit("chat", 1, burst=100)):
            assert pacer.reserve([limit]) == Grant(0, 30)  # a burst does not shorten it
        assert pacer.reserve([Limit("other", 100)]).permits == 1
        watch.now += 30
        assert pacer.reserve([Limit("chat")], 40).permits == 40

    def test_what_is_blocked_is_told_for_many_keys_at_once(self, pacer: MemoryPacer, watch: Watch) -> None:
        pacer.block("a", 30)
        pacer.block("b", 5)
        pacer.reserve([Limit("slow", rate=0.1)])  # out of permits is not blocked
        assert pacer.blocked(["a", "b", "slow", "never"]) == {"a": 30, "b": 5}
        watch.now += 5
        assert pacer.blocked(["a", "b"]) == {"a": 25}

    def test_many_threads_share_the_rate(self, pacer: MemoryPacer) -> None:
        counts: list[int] = []
        threads = [
            threading.Thread(target=lambda: counts.append(taken(pacer, Limit("mail", 1, burst=200))))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(counts) == 200

    def test_keys_that_nobody_uses_are_forgotten(self, pacer: MemoryPacer, watch: Watch) -> None:
        pacer.throttled("slow.example", 1)
        for number in range(20 * MemoryPacer.KEYS):
            pacer.reserve([Limit(f"{number}.example")])
            watch.now += 0.01
        assert len(pacer._usage) <= 2 * LATELY / 0.01 + 1
        assert pacer.reserve([Limit("slow.example")], 100).permits == 1  # still slowed


class TestAhead:
    """Permits of the next moments, each with its time."""

    def test_the_next_permits_with_their_times(self, pacer: MemoryPacer) -> None:
        limit = Limit("mail", rate=8)
        assert pacer.reserve([limit], 9, within=0.5) == Grant(1)
        assert pacer.reserve([limit], 9, within=0.5) == Grant(4, wait=0.125, interval=0.125)
        assert pacer.reserve([limit], 9, within=0.5) == Grant(0, wait=0.625)

    def test_what_is_there_now_comes_first_and_at_once(self, pacer: MemoryPacer) -> None:
        limit = Limit("mail", rate=8, burst=4)
        assert pacer.reserve([limit], 9, within=0.5) == Grant(4)
        assert pacer.reserve([limit], 9, within=0.5) == Grant(4, wait=0.125, interval=0.125)

    def test_only_the_limit_that_is_short_of_permits_spaces_them(self, pacer: MemoryPacer) -> None:
        bot, domain = Limit("bot", rate=8), Limit("domain", rate=1, burst=3)
        pacer.reserve([bot])
        assert pacer.reserve([bot, domain], 9, within=0.5) == Grant(3, wait=0.125, interval=0.125)

    def test_a_block_that_ends_soon_is_waited_for(self, pacer: MemoryPacer) -> None:
        pacer.block("mail", 0.25)
        assert pacer.reserve([Limit("mail")], 9, within=0.5) == Grant(9, wait=0.25)
        pacer.block("mail", 1)
        assert pacer.reserve([Limit("mail")], 9, within=0.5) == Grant(0, wait=1)

    def test_the_same_on_redis(self, redis_url: str) -> None:
        with two_pacers(redis_url) as (one, other):
            limit = Limit("ahead", rate=2)
            assert one.reserve([limit], 9, within=1.6) == Grant(1)
            permits, wait, interval = other.reserve([limit], 9, within=1.6)
            assert (permits, interval) == (3, 0.5)
            assert 0.3 < wait <= 0.5
            refused = one.reserve([limit], 9, within=1.6)
            assert not refused.permits
            assert refused.wait > 1.6


class TestRate:
    @given(
        rate=st.floats(0.05, 5000),
        burst=st.integers(1, 200),
        calls=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 60)), min_size=1, max_size=60),
        ahead=st.floats(0, 20),
    )
    def test_no_window_sees_more_though_permits_are_taken_ahead(
        self, rate: float, burst: int, calls: list[tuple[float, int]], ahead: float
    ) -> None:
        watch = Watch()
        pacer, limit = MemoryPacer(watch), Limit("mail", rate, burst)
        times: list[float] = []
        for intervals, permits in calls:
            watch.now += intervals / rate
            grant = pacer.reserve([limit], permits, within=ahead / rate)
            times += [watch.now + grant.wait + number * grant.interval for number in range(grant.permits)]
        times.sort()
        for first, start in enumerate(times):
            for number, end in enumerate(times[first:], 1):
                assert number <= burst + rate * (end - start + 3 * NOTHING) + NOTHING

    @given(
        rate=st.floats(0.05, 5000),
        burst=st.integers(1, 200),
        calls=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 60)), min_size=1, max_size=60),
    )
    def test_no_window_sees_more_than_the_burst_and_the_rate(
        self, rate: float, burst: int, calls: list[tuple[float, int]]
    ) -> None:
        watch = Watch()
        pacer, limit = MemoryPacer(watch), Limit("mail", rate, burst)
        granted: list[tuple[float, int]] = []
        for intervals, permits in calls:
            watch.now += intervals / rate
            granted.append((watch.now, pacer.reserve([limit], permits).permits))
        for first, (start, _) in enumerate(granted):
            total = 0
            for end, permits in granted[first:]:
                total += permits
                assert total <= burst + rate * (end - start + 2 * NOTHING)

    @given(
        rate=st.floats(0.05, 5000),
        burst=st.integers(2, 200),
        steps=st.lists(st.floats(0, 1), min_size=1, max_size=100),
    )
    def test_constant_demand_loses_nothing_while_it_asks_once_a_burst(
        self, rate: float, burst: int, steps: list[float]
    ) -> None:
        watch = Watch()
        pacer, limit, total = MemoryPacer(watch), Limit("mail", rate, burst), 0
        for step in steps:
            watch.now += step * (burst - 1) / rate
            total += pacer.reserve([limit], burst).permits
        assert total >= rate * (watch.now - 1000) - burst - rate * NOTHING

    @given(rate=st.floats(0.05, 5000), burst=st.integers(1, 50), permits=st.integers(1, 60))
    def test_after_the_wait_there_is_a_permit_and_not_before(
        self, rate: float, burst: int, permits: int
    ) -> None:
        watch = Watch()
        pacer, limit = MemoryPacer(watch), Limit("mail", rate, burst)
        while (grant := pacer.reserve([limit], permits)).permits:
            pass
        began, watch.now = watch.now, watch.now + grant.wait * 0.9 - 2 * NOTHING
        assert pacer.reserve([limit], permits).permits == 0 or grant.wait < 20 * NOTHING
        watch.now = began + grant.wait
        assert pacer.reserve([limit], permits).permits >= 1

    def test_batches_add_up_to_the_rate(self, pacer: MemoryPacer, watch: Watch) -> None:
        limit, got, dice = Limit("mail", rate=500, burst=50), 0, random.Random(7)
        while watch.now < 1010:
            got += pacer.reserve([limit], dice.randint(10, 50)).permits
            watch.now += dice.uniform(0.001, 0.02)
        assert got - 50 == pytest.approx(5000, rel=0.02)


class TestSlowDown:
    def rate(self, pacer: MemoryPacer, watch: Watch, limit: Limit) -> float:
        """The rate in force: permits of two seconds, after the burst."""
        taken(pacer, limit)
        got = 0
        for _ in range(200):
            watch.now += 0.01
            got += pacer.reserve([limit], 1000).permits
        return got / 2

    @pytest.mark.parametrize(
        ("limit", "used", "half"),
        [
            (Limit("mail", 100, burst=10), 100, 50),  # used to the full: half of the configured rate
            (Limit("mail", 100, burst=10), 40, 20),  # used less: half of what was seen
            (Limit("mail"), 300, 150),  # no rate at all: learned
        ],
    )
    def test_half_the_rate_after_the_block(
        self, pacer: MemoryPacer, watch: Watch, limit: Limit, used: float, half: float
    ) -> None:
        use(pacer, watch, limit, used, 25)
        pacer.throttled("mail", 60)
        assert pacer.reserve([limit], 50) == Grant(0, 60)
        watch.now += 60
        assert self.rate(pacer, watch, limit) == pytest.approx(half, rel=0.06)

    def test_a_first_burst_is_taken_for_a_second_of_it(self, pacer: MemoryPacer, watch: Watch) -> None:
        pacer.reserve([Limit("mail")], 80)
        watch.now += 0.01
        pacer.throttled("mail", 10)
        watch.now += 10
        assert self.rate(pacer, watch, Limit("mail")) == pytest.approx(40, rel=0.06)

    def test_lanes_that_meet_the_same_wall_count_once_and_the_longest_wait_holds(
        self, pacer: MemoryPacer, watch: Watch
    ) -> None:
        use(pacer, watch, Limit("mail"), 400, 20)
        for seconds in (5, 30, 1):
            pacer.throttled("mail", seconds)
            watch.now += 0.5
        assert pacer.reserve([Limit("mail")]) == Grant(0, 29)
        watch.now += 29
        assert self.rate(pacer, watch, Limit("mail")) == pytest.approx(200, rel=0.15)

    def test_a_wait_of_nothing_is_one_wall_too(self, pacer: MemoryPacer, watch: Watch) -> None:
        use(pacer, watch, Limit("mail"), 400, 20)
        for _ in range(8):
            pacer.throttled("mail", 0)
        assert self.rate(pacer, watch, Limit("mail")) == pytest.approx(200, rel=0.06)

    def test_every_wall_halves_again_down_to_the_floor(self, pacer: MemoryPacer, watch: Watch) -> None:
        use(pacer, watch, Limit("mail"), 400, 20)
        rates = []
        for _ in range(3):
            pacer.throttled("mail", 45)
            watch.now += 45
            rates.append(self.rate(pacer, watch, Limit("mail")))
        assert rates == pytest.approx([200, 100, 50], rel=0.1)
        for _ in range(12):
            pacer.throttled("mail", 45)
            watch.now += 45
            pacer.reserve([Limit("mail")])
        assert pacer.reserve([Limit("mail")]).wait == pytest.approx(1 / FLOOR, rel=0.01)

    def test_a_burst_shrinks_with_the_rate(self, pacer: MemoryPacer, watch: Watch) -> None:
        limit = Limit("mail", 100, burst=20)
        use(pacer, watch, limit, 100, 20)
        pacer.throttled("mail", 10)
        watch.now += 10
        assert taken(pacer, limit) == 10

    @pytest.mark.parametrize(("doublings", "rate"), [(0, 50), (1, 100), (2, 200), (3, 400), (4, 400)])
    def test_the_rate_doubles_until_it_is_the_configured_one(
        self, pacer: MemoryPacer, watch: Watch, doublings: int, rate: float
    ) -> None:
        limit = Limit("mail", 400, burst=40)
        use(pacer, watch, limit, 100, 20)
        pacer.throttled("mail", 3600)  # the block is no part of the recovery
        watch.now += 3600 + doublings * RECOVERY
        assert self.rate(pacer, watch, limit) == pytest.approx(rate, rel=0.06)

    def test_a_learned_rate_is_forgotten_in_the_end(self, pacer: MemoryPacer, watch: Watch) -> None:
        pacer.throttled("mail", 10)
        watch.now += 10 + FORGET - 1
        assert taken(pacer, Limit("mail")) < 1000
        watch.now += 1
        assert pacer.reserve([Limit("mail")], 10**6).permits == 10**6

    def test_another_key_is_not_slowed(self, pacer: MemoryPacer) -> None:
        pacer.throttled("mail:domain:a.example", 30)
        assert pacer.reserve([Limit("mail:domain:b.example")], 900).permits == 900

    def test_a_rate_below_the_floor_stays_what_it_is(self, pacer: MemoryPacer, watch: Watch) -> None:
        pacer.throttled("robot", 1)
        watch.now += 1
        pacer.reserve([Limit("robot", 0.01)])
        assert pacer.reserve([Limit("robot", 0.01)]).wait == pytest.approx(100)


def consume(url: str, limit: Limit, batch: int, seconds: float, start: Barrier, result: Connection) -> None:
    """A worker that always wants `batch`: sends what it got, and when it began and ended (CLOCK_MONOTONIC)."""
    dice, got = random.Random(), 0
    with connect(url) as client:
        pacer = RedisPacer(client)
        start.wait(60)
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            grant = pacer.reserve([limit], batch)
            got += grant.permits
            if not grant.permits:
                time.sleep(max(grant.wait, 0.02) * dice.uniform(1, 1.5))
        result.send((got, began, time.monotonic()))


def together(url: str, limit: Limit, batches: tuple[int, int], seconds: float) -> tuple[list[int], float]:
    """Two processes for so many seconds: what each got, and the seconds from the first's start to the last's end."""
    context = multiprocessing.get_context("spawn")
    start, results, workers = context.Barrier(2), [], []
    for batch in batches:
        result, sender = context.Pipe(duplex=False)
        results.append(result)
        workers.append(context.Process(target=consume, args=(url, limit, batch, seconds, start, sender)))
        workers[-1].start()
        sender.close()  # ours: should the worker die, recv() ends
    counts, begins, ends = zip(*(result.recv() for result in results), strict=True)
    for worker in workers:
        worker.join()
    return list(counts), max(ends) - min(begins)


@pytest.mark.services
class TestRedis:
    def test_two_processes_share_one_rate_in_batches(self, redis_url: str) -> None:
        counts, spent = together(redis_url, Limit("mail", rate=500, burst=50), (10, 50), 2.5)
        # The machine may hold both up, so that only permits lost by the dozen would show; none may ever go over.
        assert 0.5 * 500 * spent <= sum(counts) <= 50 + 500 * spent + 1
        assert min(counts) >= 0.1 * sum(counts)

    def test_two_processes_in_step_both_get_on(self, redis_url: str) -> None:
        counts, spent = together(redis_url, Limit("chat", rate=40), (1, 1), 1.2)
        assert sum(counts) <= 1 + 40 * spent + 1
        assert min(counts) >= 4

    def test_one_processs_permits_are_missing_to_the_other(self, redis_url: str) -> None:
        with two_pacers(redis_url) as (one, other):
            limit = Limit("mail", rate=0.5, burst=6)
            assert one.reserve([limit]) == Grant(1, 0.0)
            assert other.reserve([limit], 3) == Grant(3, 0.0)
            assert other.reserve([limit], 3) == Grant(2, 0.0)
            permits, wait, _ = one.reserve([limit], 3)
            assert permits == 0
            assert 1 < wait <= 2

    def test_the_tightest_limit_decides_and_all_are_charged_alike(self, redis_url: str) -> None:
        with two_pacers(redis_url) as (pacer, _):
            bot, chat = Limit("bot", rate=0.1, burst=10), Limit("chat", rate=0.1, burst=2)
            assert pacer.reserve([bot, chat, Limit("free")], 5) == Grant(2, 0.0)
            assert 9 < pacer.reserve([bot, chat], 5).wait <= 10
            assert taken(pacer, bot) == 8

    def test_without_a_rate_all_may_go_until_a_block(self, redis_url: str) -> None:
        with two_pacers(redis_url) as (one, other):
            assert one.reserve([Limit("mail")], 700) == one.reserve([Limit("mail")], 700) == Grant(700, 0.0)
            one.block("mail", 30)
            one.block("mail", 5)
            for limit in (Limit("mail"), Limit("mail", 1, burst=100)):
                for pacer in (one, other):
                    permits, wait, _ = pacer.reserve([limit], 700)
                    assert permits == 0
                    assert 29 < wait <= 30
            assert other.reserve([Limit("else")]).permits == 1

    def test_what_is_blocked_is_told_for_many_keys_at_once(self, redis_url: str) -> None:
        with two_pacers(redis_url) as (one, other):
            one.block("a", 30)
            other.throttled("b", 50)
            one.reserve([Limit("slow", rate=0.1)])  # out of permits is not blocked
            for pacer in (one, other):
                assert pacer.blocked(["a", "b", "slow", "never"]) == pytest.approx({"a": 30, "b": 50}, abs=1)

    def test_a_throttle_halves_what_all_processes_were_seen_to_use(self, redis_url: str) -> None:
        with two_pacers(redis_url) as (one, other), connect(redis_url) as client:
            for pacer in (one, other):
                pacer.reserve([Limit("mail")], 200)
            one.throttled("mail", 1)
            first = client.hgetall("distributor:pace:mail")
            assert float(first[b"slowed"]) == pytest.approx(200, rel=0.05)
            other.throttled("mail", 0.5)  # a lane that meets the same wall
            assert client.hgetall("distributor:pace:mail") == first
            time.sleep(1.05)
            # A learned rate brings its own burst, a tenth of a second's.
            assert 20 <= other.reserve([Limit("mail")], 200).permits <= 21
            other.throttled("mail", 30)
            assert float(client.hget("distributor:pace:mail", "slowed") or 0) == pytest.approx(100, rel=0.05)

    def test_keys_go_by_themselves(self, redis_url: str) -> None:
        with two_pacers(redis_url) as (pacer, _), connect(redis_url) as client:
            pacer.reserve([Limit("mail", rate=0.01)])
            pacer.reserve([Limit("free")])
            pacer.block("chat", 100)
            pacer.throttled("bot", 100)
            ages = {key.decode().rpartition(":")[2]: client.ttl(key) for key in client.scan_iter()}
        assert ages == pytest.approx(
            {"mail": 101, "free": LATELY + 1, "chat": 101, "bot": 101 + FORGET}, abs=1.1
        )

    def test_no_limit_asks_nobody(self, redis_url: str) -> None:
        with two_pacers(redis_url) as (pacer, _), connect(redis_url) as client:
            assert pacer.reserve([], 9) == Grant(9, 0.0)
            assert client.keys() == []

    def test_a_flushed_redis_loses_the_arrival_times_but_no_block_of_ours(self, redis_url: str) -> None:
        with two_pacers(redis_url) as (pacer, _), connect(redis_url) as client:
            pacer.reserve([Limit("mail", rate=0.1)])
            pacer.block("chat", 30)
            client.flushdb()
            client.script_flush()
            assert pacer.reserve([Limit("mail", rate=0.1)]) == Grant(1, 0.0)
            assert 29 < pacer.reserve([Limit("chat")]).wait <= 30


class TestRedisAway:
    def test_each_process_takes_its_share(self, caplog: pytest.LogCaptureFixture) -> None:
        with connect("redis://127.0.0.1:1") as client:
            pacer = RedisPacer(client, workers=4)
            limit = Limit("mail", rate=2, burst=8)
            assert pacer.reserve([limit], 100) == Grant(2, 0.0)
            permits, wait, _ = pacer.reserve([limit], 100)
            assert permits == 0
            assert 1.9 < wait <= 2
            assert pacer.reserve([Limit("free")], 100).permits == 100
            pacer.block("mail", 30)
            assert 29 < pacer.reserve([limit]).wait <= 30
        assert [record.getMessage().split(":")[0] for record in caplog.records] == ["pacing_alone workers=4"]

    def test_a_throttle_is_remembered(self) -> None:
        with connect("redis://127.0.0.1:1") as client:
            pacer = RedisPacer(client)
            pacer.reserve([Limit("free")], 100)
            pacer.throttled("free", 0.1)
            assert 0 < pacer.reserve([Limit("free")]).wait <= 0.1
            time.sleep(0.11)
            assert pacer.reserve([Limit("free")], 100).permits == 5

    @pytest.mark.services
    def test_a_frozen_server_costs_its_timeout_once(self, own_redis: OwnServer) -> None:
        with connect(own_redis.url, timeout=0.3) as client:
            pacer, limit = RedisPacer(client, workers=2), Limit("mail", rate=2, burst=2)
            pacer.reserve([Limit("free")])  # the connection is there
            with frozen(own_redis):
                assert elapsed(lambda: pacer.reserve([limit])) > 0.2
                assert elapsed(lambda: taken(pacer, limit)) < 0.28
                permits, wait, _ = pacer.reserve([limit])
                assert permits == 0
                assert 0.8 < wait <= 1

    @pytest.mark.services
    def test_when_it_is_back_one_thread_finds_out(
        self, own_redis: OwnServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("distributor.redis_link.AWAY", 0.2)
        with connect(own_redis.url, timeout=0.3) as client:
            pacer = RedisPacer(client)
            with frozen(own_redis):
                pacer.reserve([Limit("mail")])
                time.sleep(0.25)
                times = in_threads(4, lambda: elapsed(lambda: pacer.reserve([Limit("mail")])))
                assert sum(spent > 0.2 for spent in times) == 1
            time.sleep(0.25)
            pacer.reserve([Limit("told")])
            assert client.exists("distributor:pace:told")

    @pytest.mark.services
    def test_blocks_and_walls_outlive_a_kill(self, own_redis: OwnServer) -> None:
        with connect(own_redis.url) as client:
            pacer, limit = RedisPacer(client), Limit("free")
            pacer.reserve([limit], 100)
            pacer.throttled("free", 0.1)
            pacer.block("mail", 30)
            own_redis.kill()
            assert 29 < pacer.reserve([Limit("mail", rate=100)]).wait <= 30
            time.sleep(0.11)
            assert elapsed(lambda: pacer.reserve([Limit("first")])) < 5
            # Its own hundred a second, halved; a tenth of a second's at once.
            assert pacer.reserve([limit], 100).permits == 5
            own_redis.start()
            assert 29 < pacer.reserve([Limit("mail", rate=100)]).wait <= 30


@contextmanager
def frozen(server: OwnServer) -> Iterator[None]:
    """It accepts connections, by its kernel, and answers nobody."""
    assert server.process
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def elapsed(call: Callable[[], object]) -> float:
    """The seconds a call takes."""
    began = time.monotonic()
    call()
    return time.monotonic() - began


def in_threads(count: int, call: Callable[[], float]) -> list[float]:
    """What each of so many threads answered."""
    answers: list[float] = []
    threads = [threading.Thread(target=lambda: answers.append(call())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
