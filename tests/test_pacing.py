"""Permits in memory, exactly, and in Redis, shared."""

import threading
import time
from collections.abc import Callable

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from services import OwnServer, Server

from distributor.pacing import Limit, MemoryPacer, Pacer, RedisPacer


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


def taken(pacer: Pacer, *limits: Limit) -> int:
    """How many permits there are right now."""
    count = 0
    while pacer.reserve(limits) == 0:
        count += 1
    return count


class TestMemory:
    def test_one_permit_an_interval(self, pacer: MemoryPacer, watch: Watch) -> None:
        limit = Limit("mail", rate=4)
        assert pacer.reserve([limit]) == 0
        assert pacer.reserve([limit]) == 0.25
        watch.now += 0.125
        assert pacer.reserve([limit]) == 0.125
        watch.now += 0.125
        assert pacer.reserve([limit]) == 0
        assert pacer.reserve([limit]) == 0.25

    def test_a_burst_is_taken_at_once_and_refills_at_the_rate(self, pacer: MemoryPacer, watch: Watch) -> None:
        limit = Limit("mail", rate=2, burst=5)
        assert taken(pacer, limit) == 5
        watch.now += 1
        assert taken(pacer, limit) == 2
        watch.now += 100
        assert taken(pacer, limit) == 5

    def test_waiting_longer_saves_up_nothing(self, pacer: MemoryPacer, watch: Watch) -> None:
        limit = Limit("mail", rate=1)
        assert taken(pacer, limit) == 1
        watch.now += 60
        assert taken(pacer, limit) == 1

    def test_all_limits_or_none(self, pacer: MemoryPacer) -> None:
        bot, chat = Limit("bot", rate=10, burst=10), Limit("chat", rate=1)
        assert pacer.reserve([bot, chat]) == 0
        assert pacer.reserve([bot, chat]) == 1
        assert taken(pacer, bot) == 9

    def test_without_a_limit_all_may_go(self, pacer: MemoryPacer) -> None:
        assert pacer.reserve([]) == 0

    def test_a_block_holds_its_key_alone_and_the_longer_one_wins(
        self, pacer: MemoryPacer, watch: Watch
    ) -> None:
        pacer.block("chat", 30)
        pacer.block("chat", 5)
        assert pacer.reserve([Limit("chat", 100)]) == 30
        assert pacer.reserve([Limit("other", 100)]) == 0
        assert pacer.reserve([Limit("chat", 1, burst=100)]) == 30  # a burst does not shorten it
        watch.now += 30
        assert pacer.reserve([Limit("chat", 100)]) == 0

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


@pytest.mark.services
class TestRedis:
    def test_two_processes_share_one_rate(self, redis_url: str) -> None:
        with redis.Redis.from_url(redis_url) as one, redis.Redis.from_url(redis_url) as other:
            pacers = RedisPacer(one), RedisPacer(other)
            limit = Limit("mail", rate=0.5, burst=6)
            assert pacers[0].reserve([limit]) == 0
            assert taken(pacers[1], limit) == 5
            assert 0 < pacers[0].reserve([limit]) <= 2

    def test_the_rate_is_kept(self, redis_url: str) -> None:
        with redis.Redis.from_url(redis_url) as client:
            pacer, limit, sent = RedisPacer(client), Limit("mail", rate=100), 0
            began = time.monotonic()
            while (spent := time.monotonic() - began) < 0.3:
                wait = pacer.reserve([limit])
                sent += wait == 0
                time.sleep(min(wait, 0.02))
            assert 10 <= sent <= spent * 100 + 1

    def test_all_limits_or_none(self, redis_url: str) -> None:
        with redis.Redis.from_url(redis_url) as client:
            pacer = RedisPacer(client)
            bot, chat = Limit("bot", rate=0.1, burst=4), Limit("chat", rate=0.1)
            assert pacer.reserve([bot, chat]) == 0
            assert 9 < pacer.reserve([bot, chat]) <= 10
            assert taken(pacer, bot) == 3

    def test_a_block_reaches_the_other_process_and_the_longer_one_wins(self, redis_url: str) -> None:
        with redis.Redis.from_url(redis_url) as one, redis.Redis.from_url(redis_url) as other:
            RedisPacer(one).block("chat", 30)
            RedisPacer(one).block("chat", 5)
            assert 29 < RedisPacer(other).reserve([Limit("chat", 100)]) <= 30
            assert 29 < RedisPacer(other).reserve([Limit("chat", 1, burst=100)]) <= 30
            assert RedisPacer(other).reserve([Limit("else", 100)]) == 0

    def test_keys_do_not_stay_for_ever(self, redis_url: str) -> None:
        with redis.Redis.from_url(redis_url) as client:
            pacer = RedisPacer(client)
            pacer.reserve([Limit("mail", rate=1)])
            pacer.block("chat", 100)
            ages = {key.decode(): client.ttl(key) for key in client.scan_iter()}
        assert 0 < ages["distributor:pace:mail"] <= 62
        assert 100 < ages["distributor:pace:chat:blocked"] <= 161

    def test_no_limit_asks_nobody(self, redis_url: str) -> None:
        with redis.Redis.from_url(redis_url) as client:
            assert RedisPacer(client).reserve([]) == 0
            assert client.keys() == []

    def test_without_redis_each_process_takes_its_share(self, unreachable: Callable[[], redis.Redis]) -> None:
        with unreachable() as client:
            pacer = RedisPacer(client, workers=4)
            limit = Limit("mail", rate=2)
            assert pacer.reserve([limit]) == 0
            asked = time.monotonic()
            assert 1.9 < pacer.reserve([limit]) <= 2  # 2 a second ÷ 4 workers
            pacer.block("mail", 30)
            assert time.monotonic() - asked < 0.1  # only the first one waits for the server
            assert 29 < pacer.reserve([limit]) <= 30

    def test_a_block_survives_the_loss_of_redis(self, redis_server: Server, redis_url: str) -> None:
        if not isinstance(redis_server, OwnServer):
            pytest.skip("the server is not ours to stop")
        with redis.Redis.from_url(redis_url, socket_timeout=1) as client:
            pacer = RedisPacer(client)
            pacer.block("mail", 30)
            redis_server.stop()
            try:
                assert 29 < pacer.reserve([Limit("mail", rate=100)]) <= 30
            finally:
                redis_server.start()
            assert 29 < pacer.reserve([Limit("mail", rate=100)]) <= 30


@pytest.fixture
def unreachable() -> Callable[[], redis.Redis]:
    """A client of a server that is not there; it says so only after its own tries, as clients do."""
    return lambda: redis.Redis(host="127.0.0.1", port=1, retry=Retry(ConstantBackoff(0.2), 1))
