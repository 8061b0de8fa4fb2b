"""One token for all workers: the store, and who may ask for a new one."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from services import free_port

from distributor.channels.wechat.store import MemoryStore, SharedStore, open_store
from distributor.channels.wechat.tokens import Token, Tokens
from distributor.errors import Kind, Scope, Unavailable

APPID = "wx0123456789abcdef"
SOON = timedelta(milliseconds=80)
LONG = timedelta(hours=1)


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.services)])
def two_stores(request: pytest.FixtureRequest) -> tuple[SharedStore, SharedStore]:
    """What two workers have: the same memory, or two connections to one Redis."""
    if request.param == "memory":
        store = MemoryStore()
        return store, store
    url = request.getfixturevalue("redis_url")
    return open_store(url), open_store(url)


class WeChat:
    """Answers like stable_token; `answers` may be set back to show that a force was needed."""

    def __init__(self, *, lasts: int = 7200) -> None:
        self.asked: list[bool] = []
        self.token, self.lasts = 1, lasts
        self._lock = threading.Lock()

    def ask(self, force: bool) -> Token:
        with self._lock:
            self.asked.append(force)
            self.token += force
            return Token(f"token-{self.token}", self.lasts)


def test_values_go_by_themselves(two_stores: tuple[SharedStore, SharedStore]) -> None:
    one, other = two_stores
    assert other.get("a") is None
    one.set("a", "é", SOON)
    assert other.get("a") == "é"
    threading.Event().wait(0.15)
    assert other.get("a") is None


def test_one_holder_of_a_lock(two_stores: tuple[SharedStore, SharedStore]) -> None:
    inside: list[int] = []

    def work(store: SharedStore) -> int:
        with store.lock("a"):
            inside.append(1)
            seen = len(inside)
            threading.Event().wait(0.02)
            inside.pop()
            return seen

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, [*two_stores, *two_stores])) == [1, 1, 1, 1]


def test_a_lock_is_given_back_after_an_error(two_stores: tuple[SharedStore, SharedStore]) -> None:
    one, other = two_stores
    with pytest.raises(ValueError, match="x"), one.lock("a"):
        raise ValueError("x")
    with other.lock("a"):
        pass


def test_workers_ask_once(two_stores: tuple[SharedStore, SharedStore]) -> None:
    wechat = WeChat()
    holders = [Tokens(store, APPID, wechat.ask) for store in two_stores]
    with ThreadPoolExecutor(8) as pool:
        tokens = set(pool.map(lambda holder: holder.current(), holders * 8))
    assert (tokens, wechat.asked) == ({"token-1"}, [False])


def test_a_refused_token_is_replaced_once(two_stores: tuple[SharedStore, SharedStore]) -> None:
    """Many workers meet the refusal at once; one forces, the others take what it got."""
    wechat = WeChat()
    holders = [Tokens(store, APPID, wechat.ask) for store in two_stores]
    assert holders[0].current() == "token-1"
    with ThreadPoolExecutor(8) as pool:
        tokens = set(pool.map(lambda holder: holder.instead_of("token-1"), holders * 8))
    assert (tokens, wechat.asked) == ({"token-2"}, [False, False, True])
    assert holders[1].current() == "token-2"


def test_a_plain_new_token_needs_no_force() -> None:
    wechat = WeChat()
    holder = Tokens(MemoryStore(), APPID, wechat.ask)
    holder.current()
    wechat.token = 5  # it ran out, and somebody else asked
    assert holder.instead_of("token-1") == "token-5"
    assert wechat.asked == [False, False]


def test_no_second_force_within_half_a_minute() -> None:
    wechat = WeChat()
    holder = Tokens(MemoryStore(), APPID, wechat.ask)
    holder.current()
    holder.instead_of("token-1")
    with pytest.raises(Unavailable, match="refuses that one too") as caught:
        holder.instead_of("token-2")
    assert (caught.value.kind, caught.value.counts, caught.value.retry_after) == (
        Kind.THROTTLE,
        False,
        timedelta(seconds=30),
    )
    assert wechat.asked.count(True) == 1


def test_a_token_that_nobody_holds_is_not_forced() -> None:
    """Not before it is refused again: then it is known that nobody else has forced one."""
    wechat = WeChat()
    holder = Tokens(MemoryStore(), APPID, wechat.ask)
    with pytest.raises(Unavailable, match="It was not forced to"):
        holder.instead_of("token-1")
    assert wechat.asked == [False]
    assert holder.instead_of("token-1") == "token-2"
    assert wechat.asked == [False, False, True]


class Noting(MemoryStore):
    """Remembers for how long things were kept."""

    def __init__(self) -> None:
        super().__init__()
        self.lasts: list[float] = []

    def set(self, key: str, value: str, lasts: timedelta, /) -> None:
        self.lasts.append(lasts.total_seconds())
        super().set(key, value, lasts)


@pytest.mark.parametrize(("lasts", "least", "most"), [(7200, 6840, 6900), (400, 40, 100), (200, 10, 10)])
def test_kept_until_five_minutes_before_the_end(lasts: int, least: int, most: int) -> None:
    store = Noting()
    Tokens(store, APPID, WeChat(lasts=lasts).ask).current()
    assert least <= store.lasts[0] <= most


def test_accounts_have_tokens_of_their_own() -> None:
    store, first, second = MemoryStore(), WeChat(), WeChat()
    second.token = 7
    assert Tokens(store, APPID, first.ask).current() == "token-1"
    assert Tokens(store, APPID.replace("0", "1"), second.ask).current() == "token-7"


@pytest.fixture
def away() -> SharedStore:
    return open_store(f"redis://127.0.0.1:{free_port()}/0")


def test_without_redis_everybody_asks(away: SharedStore) -> None:
    wechat = WeChat()
    holder = Tokens(away, APPID, wechat.ask)
    assert [holder.current(), holder.current()] == ["token-1", "token-1"]
    assert wechat.asked == [False, False]


def test_without_redis_nobody_forces_and_the_operator_is_told(away: SharedStore) -> None:
    wechat = WeChat()
    holder = Tokens(away, APPID, wechat.ask)
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"not forced to: .* Redis is away") as caught:
            holder.instead_of("token-1")
        facts = caught.value.scope, caught.value.kind, caught.value.counts
        assert facts == (Scope.CHANNEL, Kind.CONFIG, False)
    assert wechat.asked == [False, False]
    wechat.token = 5
    assert holder.instead_of("token-1") == "token-5"
