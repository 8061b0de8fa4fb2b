"""Sign-up as a weapon: what it takes to have mails sent to somebody else, and what comes of trying."""

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
import redis
from altcha import Challenge, Payload, solve_challenge
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from services import OwnServer, Project

from distributor.abuse import Outcome, Reason, SignupAttempt, SignupGuard, Verdict, guard_of
from distributor.abuse.disposable import DisposableDomains, listed
from distributor.abuse.proof import Proofs
from distributor.abuse.seal import Seals
from distributor.abuse.sources import Source, key_of, mailbox_of, source_of
from distributor.abuse.tally import MemoryTally, Tally
from distributor.abuse.tally_redis import PREFIX, RedisTally
from distributor.redis_link import RedisLink, open_redis
from distributor.settings import AbuseSettings
from distributor.settings.abuse import MAILBOX_PROVIDERS

SECRET = b"a secret of thirty-two bytes ..."
ALLOWED = Verdict(Outcome.ALLOWED)
FORM, ATTACK = Verdict(Outcome.CHALLENGE, Reason.FORM), Verdict(Outcome.CHALLENGE, Reason.ATTACK)


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def move(self, **span: float) -> None:
        self.now += timedelta(**span).total_seconds()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The libraries' clock as well."""
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.services)])
def tally(request: pytest.FixtureRequest, clock: Clock) -> Iterator[Tally]:
    if request.param == "memory":
        yield MemoryTally(clock)
        return
    with open_redis(request.getfixturevalue("redis_url")) as client:
        yield shared_tally(client, clock)


def shared_tally(client: "redis.Redis", clock: Callable[[], float] = time.time) -> RedisTally:
    return RedisTally(client, RedisLink("alone"), clock)


def solved(challenge: str) -> str:
    found = Challenge.from_dict(json.loads(challenge))
    solution = solve_challenge(found)
    assert solution
    return Payload(found, solution).to_base64()


class TestSources:
    @pytest.mark.parametrize(
        ("ip", "host", "network"),
        [
            ("203.0.113.7", "203.0.113.7", "203.0.113.0/24"),
            ("::ffff:203.0.113.7", "203.0.113.7", "203.0.113.0/24"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", "2001:db8:1::/48"),
            ("2001:0DB8:0001:0002::9", "2001:db8:1:2::/64", "2001:db8:1::/48"),
            ("fe80::1%eth0", "fe80::/64", "fe80::/48"),
            ("", "unknown", "unknown"),
            ("203.0.113.7, 198.51.100.1", "unknown", "unknown"),
            ("010.0.0.1", "unknown", "unknown"),
        ],
    )
    def test_of_an_ip(self, ip: str, host: str, network: str) -> None:
        assert source_of(ip) == Source(host, network)

    @pytest.mark.parametrize(
        ("address", "mailbox"),
        [
            ("Li.Lei@Example.COM", "li.lei@example.com"),
            ("li+news@example.com", "li@example.com"),
            ("l.i+x@gmail.com", "li@gmail.com"),
            ("L.I@googlemail.com", "li@gmail.com"),
            ("+@example.com", "+@example.com"),
        ],
    )
    def test_of_one_mailbox(self, address: str, mailbox: str) -> None:
        assert mailbox_of(address) == mailbox

    def test_a_key_tells_nothing(self) -> None:
        key = key_of("address", "li@example.com", SECRET)
        assert re.fullmatch(r"address:[0-9a-f]{32}", key)
        assert key != key_of("address", "li@example.com", b"another")
        assert key_of("address", "\ud800@example.com", SECRET)


class TestDisposableDomains:
    def test_the_list_is_in_order_and_says_each_once(self) -> None:
        lines = [line for line in read_list() if not line.startswith("#")]
        assert lines == sorted(set(lines))
        assert len(lines) > 500
        assert all(re.fullmatch(r"([a-z0-9-]+\.)+[a-z]{2,}", line) for line in lines)
        assert not listed() & {*MAILBOX_PROVIDERS, "example.com", "duck.com"}

    def test_no_entry_stands_below_another(self) -> None:
        domains = DisposableDomains()
        assert not [name for name in listed() if name.partition(".")[2] in domains]

    @pytest.mark.parametrize(
        ("domain", "disposable"),
        [
            ("mailinator.com", True),
            ("MAILINATOR.com.", True),
            ("any.thing.mailinator.com", True),
            ("notmailinator.example", False),
            ("com", False),
            ("", False),
            ("trash.example", True),
            ("a.trash.example", True),
            ("good.trash.example", False),
            ("very.good.trash.example", False),
            ("yopmail.com", False),
        ],
    )
    def test_the_nearest_entry_decides(self, domain: str, disposable: bool) -> None:
        domains = DisposableDomains(add=["trash.example"], allow=["good.trash.example", "yopmail.com"])
        assert (domain in domains) is disposable


def read_list() -> list[str]:
    from importlib.resources import files  # noqa: PLC0415

    return files("distributor.abuse").joinpath("disposable.txt").read_text("utf-8").splitlines()


class TestTally:
    def test_a_window_moves(self, tally: Tally, clock: Clock) -> None:
        for _ in range(3):
            assert tally.hit("3/hour", "a")
            clock.move(minutes=10)
        assert not tally.hit("3/hour", "a")
        assert tally.hit("3/hour", "b"), "another key is another count"
        assert tally.wait("3/hour", "a") == pytest.approx(30 * 60)
        clock.move(minutes=30, seconds=1)
        assert tally.wait("3/hour", "a") == 0
        assert tally.hit("3/hour", "a")
        assert not tally.hit("3/hour", "a"), "the second one ends ten minutes after the first"

    def test_what_is_refused_counts_nowhere(self, tally: Tally, clock: Clock) -> None:
        assert tally.hit("1/hour", "a")
        for _ in range(50):
            clock.move(minutes=1)
            assert not tally.hit("1/hour", "a")
        clock.move(minutes=10, seconds=1)
        assert tally.hit("1/hour", "a")

    def test_a_cost_fills_it_faster_and_never_exceeds_it(self, tally: Tally) -> None:
        assert [tally.hit("10/hour", "a", 4) for _ in range(3)] == [True, True, False]
        assert [tally.hit("10/hour", "a") for _ in range(3)] == [True, True, False]
        assert [tally.hit("3/day", "b", 4) for _ in range(2)] == [True, False]

    def test_it_is_exact_under_eight_threads(self, tally: Tally) -> None:
        with ThreadPoolExecutor(8) as pool:
            let_in = list(pool.map(lambda _: tally.hit("37/hour", "a"), range(400)))
        assert sum(let_in) == 37

    def test_a_mark_is_new_once(self, tally: Tally) -> None:
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(lambda _: tally.mark("nonce", 60), range(100))) == 1
        assert tally.marked(["other", "nonce"])
        assert not tally.marked(["other"])

    def test_a_mark_lasts_from_the_last_time(self, clock: Clock) -> None:
        tally = MemoryTally(clock)
        assert tally.mark("a", 60)
        clock.move(seconds=50)
        assert not tally.mark("a", 60)
        clock.move(seconds=50)
        assert tally.marked(["a"])
        clock.move(seconds=11)
        assert not tally.marked(["a"])
        assert tally.mark("a", 60)

    def test_memory_is_bounded_whatever_the_keys(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(MemoryTally, "KEYS", 100)
        tally = MemoryTally(clock)
        for number in range(1000):
            assert tally.hit("600/hour", "in use")
            tally.hit("5/hour", str(number))
            tally.mark(str(number), 60)
            if number == 599:
                break
        assert not tally.hit("600/hour", "in use"), "what is in use is kept"
        assert len(tally._hits) <= 100
        assert len(tally._marks) <= 100


@pytest.mark.services
class TestTallyOnRedis:
    def test_processes_count_together(self, redis_url: str) -> None:
        with open_redis(redis_url) as one, open_redis(redis_url) as other:
            tallies = [shared_tally(one), shared_tally(other)]
            with ThreadPoolExecutor(8) as pool:
                let_in = list(pool.map(lambda number: tallies[number % 2].hit("21/hour", "a"), range(200)))
            assert sum(let_in) == 21
            assert tallies[0].mark("nonce", 60)
            assert not tallies[1].mark("nonce", 60)
            assert tallies[1].marked(["nonce"])

    def test_everything_goes_by_itself(self, redis_url: str) -> None:
        with open_redis(redis_url) as client:
            tally = shared_tally(client)
            tally.hit("3/minute", "a")
            tally.mark("b", 60)
            keys = client.keys()
            assert len(keys) == 2
            assert all(0 < client.ttl(key) <= 60 for key in keys)

    def test_killed_in_the_middle_it_never_opens(self, own_redis: OwnServer) -> None:
        with open_redis(own_redis.url) as client:
            tally = shared_tally(client)
            assert sum(tally.hit("10/hour", "a") for _ in range(6)) == 6
            assert tally.mark("nonce", 60)
            own_redis.kill()
            began = time.monotonic()
            with ThreadPoolExecutor(8) as pool:
                assert sum(pool.map(lambda _: tally.hit("10/hour", "a"), range(100))) == 4
            assert 3000 < tally.wait("10/hour", "a") <= 3600
            assert tally.marked(["nonce"])
            assert not tally.mark("nonce", 60)
            assert tally.mark("alone", 60)
            assert time.monotonic() - began < 20, "108 calls, none of which waits"

    def test_back_again_it_is_shared_again(
        self, own_redis: OwnServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("distributor.redis_link.AWAY", 0)
        with open_redis(own_redis.url) as one, open_redis(own_redis.url) as other:
            tallies = [shared_tally(one), shared_tally(other)]
            own_redis.kill()
            assert [each.hit("1/hour", "a") for each in tallies] == [True, True]
            own_redis.start()
            assert [each.hit("1/hour", "b") for each in tallies] == [True, False]

    def test_no_address_lies_about_in_redis(self, redis_url: str, clock: Clock) -> None:
        with open_redis(redis_url) as client:
            scene = Scene(clock, shared_tally(client))
            assert scene.visitor("203.0.113.7").signs_up("li@readers.example") == ALLOWED
            kept = b" ".join(client.keys())
            assert kept.count(PREFIX.encode()) >= 5
            for word in (b"readers", b"li@", b"203.0.113"):
                assert word not in kept


class TestSeals:
    def test_they_know_their_age(self, clock: Clock) -> None:
        seals = Seals(lambda: SECRET, clock)
        seal = seals.new()
        assert seals.age(seal) == pytest.approx(0, abs=0.01)
        clock.move(hours=3)
        assert seals.age(seal) == pytest.approx(10_800, abs=0.01)

    def test_no_other_is_taken(self, clock: Clock) -> None:
        seals = Seals(lambda: SECRET, clock)
        moment, _, signature = seals.new().partition(".")
        earlier = f"{int(moment, 16) - 60_000:x}"
        foreign = Seals(lambda: b"another secret", clock).new()
        for seal in (
            "",
            ".",
            f"{earlier}.{signature}",
            f"{moment}.{'0' * 32}",
            f"{moment}.",
            foreign,
            "é" * 40,
        ):
            assert seals.age(seal) is None, seal


@pytest.fixture
def proofs(tally: Tally, clock: Clock) -> Proofs:
    return Proofs(1, timedelta(minutes=30), tally, secret=lambda: SECRET, clock=clock)


class TestProofs:
    def test_one_is_good_once(self, proofs: Proofs) -> None:
        proof = solved(proofs.challenge())
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(lambda _: proofs.redeem(proof), range(24))) == 1

    def test_in_another_spelling_it_is_the_same(self, proofs: Proofs) -> None:
        proof = solved(proofs.challenge())
        assert proofs.redeem(proof)
        spelled = json.loads(base64.b64decode(proof))
        spelled["more"] = 1
        spelled["challenge"]["parameters"]["nonce"] = spelled["challenge"]["parameters"]["nonce"].upper()
        assert not proofs.redeem(encoded(spelled))
        assert not proofs.redeem(f" {proof}\n")

    def test_an_old_one_is_none(self, proofs: Proofs, clock: Clock) -> None:
        proof = solved(proofs.challenge())
        clock.move(minutes=30, seconds=1)
        assert not proofs.redeem(proof)

    def test_each_costs_its_own_work(self, proofs: Proofs) -> None:
        one, two = (json.loads(base64.b64decode(solved(proofs.challenge()))) for _ in range(2))
        assert not proofs.redeem(encoded({"challenge": one["challenge"], "solution": two["solution"]}))
        assert proofs.redeem(encoded(one))
        assert proofs.redeem(encoded(two))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("cost", 0),
            ("keyPrefix", ""),
            ("keyPrefix", "0"),
            ("algorithm", "SHA-256"),
            ("expiresAt", 9_999_999_999),
            ("expiresAt", None),
            ("keySignature", "00"),
            ("nonce", "00" * 16),
        ],
    )
    def test_what_we_asked_for_cannot_be_changed(self, proofs: Proofs, name: str, value: Any) -> None:
        challenge = json.loads(proofs.challenge())
        challenge["parameters"][name] = value
        assert not proofs.redeem(forged(challenge))

    def test_a_challenge_of_another_secret_is_none(self, proofs: Proofs) -> None:
        foreign = Proofs(1, timedelta(hours=1), MemoryTally(), secret=lambda: b"theirs")
        assert not proofs.redeem(solved(foreign.challenge()))
        unsigned = json.loads(foreign.challenge())
        del unsigned["signature"]
        assert not proofs.redeem(forged(unsigned))

    def test_a_key_that_fits_needs_the_right_counter(self, proofs: Proofs) -> None:
        counters: tuple[Any, ...] = (-1, 0.5, "7", 2**40, None, [], True)
        for counter in counters:
            payload = json.loads(base64.b64decode(solved(proofs.challenge())))
            payload["solution"]["counter"] = counter
            assert not proofs.redeem(encoded(payload)), counter

    def test_a_challenge_takes_some_hundred_tries(self, proofs: Proofs) -> None:
        """256 on average: with 30, the mean lies between 150 and 400 all but once in a thousand runs."""
        tries = [
            json.loads(base64.b64decode(solved(proofs.challenge())))["solution"]["counter"] for _ in range(60)
        ]
        assert 120 < sum(tries) / len(tries) < 480

    def test_a_forged_one_costs_us_no_work(self, proofs: Proofs, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = count()
        monkeypatch.setattr(hashlib, "pbkdf2_hmac", lambda *_: next(asked))
        challenge = json.loads(proofs.challenge())
        challenge["parameters"]["cost"] = 10**9
        assert not proofs.redeem(
            encoded({"challenge": challenge, "solution": {"counter": 1, "derivedKey": "00"}})
        )
        assert next(asked) == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["challenge", "parameters", "solution", "counter", "derivedKey", "signature", "nonce"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values | st.text(max_size=200))
def test_no_rubbish_breaks_a_proof(rubbish: Any) -> None:
    proofs = Proofs(1, timedelta(minutes=1), MemoryTally(), secret=lambda: SECRET)
    text = rubbish if isinstance(rubbish, str) else encoded(rubbish)
    assert proofs.redeem(text) is False
    template = json.loads(proofs.challenge())
    template["parameters"]["data"] = rubbish if isinstance(rubbish, dict) else {"x": rubbish}
    assert (
        proofs.redeem(encoded({"challenge": template, "solution": {"counter": 1, "derivedKey": "00"}}))
        is False
    )


def encoded(payload: Any) -> str:
    return base64.b64encode(json.dumps(payload).encode()).decode()


def forged(challenge: dict[str, Any]) -> str:
    """What an attacker would do with a challenge that suits him better."""
    parameters = challenge["parameters"]
    key = hashlib.pbkdf2_hmac(
        "sha256",
        bytes.fromhex(parameters["nonce"]) + bytes(4),
        bytes.fromhex(parameters["salt"]),
        parameters["cost"] or 1,
        32,
    )
    return encoded({"challenge": challenge, "solution": {"counter": 0, "derivedKey": key.hex()}})


class Visitor:
    """A person, or a program, at one address of the net."""

    def __init__(self, guard: SignupGuard, ip: str, clock: Clock | None = None) -> None:
        self.guard, self.ip, self.clock = guard, ip, clock

    def signs_up(self, address: str, *, after: float = 5, proves: bool = True, trap: str = "") -> Verdict:
        """Opens the form, waits so many seconds, sends it; with the proof, if one is asked for."""
        form = self.guard.form(self.ip)
        if self.clock:
            self.clock.move(seconds=after)
        proof = solved(form.challenge) if form.challenge and proves else ""
        return self.guard.judge(
            SignupAttempt(ip=self.ip, address=address, seal=form.seal, proof=proof, trap=trap)
        )


class Scene:
    """A guard, its clock, and what the operator was told."""

    def __init__(self, clock: Clock, tally: Tally | None = None, **changes: Any) -> None:
        self.clock = clock
        self.told: list[tuple[str, str, str]] = []
        self.guard = SignupGuard(
            AbuseSettings(**{"work": 1, **changes}),
            tally,
            secret=lambda: SECRET,
            tell=lambda *notice: self.told.append(notice),
            clock=clock,
        )
        self.numbers = count(1)

    def visitor(self, ip: str) -> Visitor:
        return Visitor(self.guard, ip, self.clock)

    def crowd(self, size: int, **options: Any) -> list[Outcome]:
        """So many people, each from a network of their own, each with an address of their own."""
        return [
            self.visitor(f"2001:db8:{number:x}::1").signs_up(f"r{number}@gmail.com", **options).outcome
            for number in (next(self.numbers) for _ in range(size))
        ]


class TestAnOrdinaryDay:
    def test_a_person_joins_and_notices_nothing(self, clock: Clock, tally: Tally) -> None:
        scene = Scene(clock, tally)
        assert scene.guard.form("203.0.113.7").challenge == ""
        assert scene.visitor("203.0.113.7").signs_up("li@readers.example") == ALLOWED
        assert set(scene.crowd(50)) == {Outcome.ALLOWED}
        assert scene.told == []

    def test_a_program_falls_into_the_trap_and_learns_nothing(self, clock: Clock) -> None:
        scene = Scene(clock)
        verdict = scene.visitor("203.0.113.7").signs_up("li@readers.example", trap="https://spam.example")
        assert verdict == Verdict(Outcome.DROPPED, Reason.TRAP)

    @pytest.mark.parametrize("address", ["li@mailinator.com", "li@x.MAILINATOR.com", "li@own.example"])
    def test_an_address_for_a_day_is_refused_or_not(self, clock: Clock, address: str) -> None:
        refused = Verdict(Outcome.REFUSED, Reason.DISPOSABLE)
        scene = Scene(clock, disposable_add=["own.example"])
        assert scene.visitor("203.0.113.7").signs_up(address) == refused
        signed = SignupAttempt(ip="", address=address, signed=True)
        assert scene.guard.judge(signed) == refused
        scene = Scene(clock, disposable="allow", disposable_add=["own.example"])
        assert scene.visitor("203.0.113.7").signs_up(address) == ALLOWED

    def test_what_is_not_allowed_is_logged_without_a_reader(
        self, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        Scene(clock).visitor("203.0.113.7").signs_up("li@mailinator.com")
        assert "signup_refused reason=disposable newsletter= network=203.0.113.0/24" in caplog.text
        assert "li@" not in caplog.text


class TestTheForm:
    @pytest.mark.parametrize(
        ("after", "verdict"), [(1.9, FORM), (2.1, ALLOWED), (14_390, ALLOWED), (14_410, FORM)]
    )
    def test_too_quick_or_too_old_asks_once_more(self, clock: Clock, after: float, verdict: Verdict) -> None:
        assert Scene(clock).visitor("203.0.113.7").signs_up("li@readers.example", after=after) == verdict

    @pytest.mark.parametrize("seal", ["", "18e0.00000000000000000000000000000000", "x" * 5000])
    def test_a_form_that_is_not_ours_leads_to_ours(self, clock: Clock, seal: str) -> None:
        """A form on another site has no seal: its reader presses once more, or the script does."""
        scene = Scene(clock)
        attempt = SignupAttempt(ip="203.0.113.7", address="li@readers.example", seal=seal)
        assert scene.guard.judge(attempt) == FORM
        again = scene.guard.form("203.0.113.7", insist=True)
        by_script = SignupAttempt(
            ip="203.0.113.7", address="li@readers.example", seal=again.seal, proof=solved(again.challenge)
        )
        assert scene.guard.judge(by_script) == ALLOWED
        clock.move(seconds=3)
        by_hand = SignupAttempt(ip="203.0.113.7", address="li@readers.example", seal=again.seal)
        assert scene.guard.judge(by_hand) == ALLOWED

    def test_with_no_time_asked_for_the_seal_still_is(self, clock: Clock) -> None:
        scene = Scene(clock, quickest="0s")
        assert scene.guard.judge(SignupAttempt(ip="203.0.113.7", address="li@qq.com")) == FORM
        assert scene.visitor("203.0.113.7").signs_up("li@qq.com", after=0) == ALLOWED


anything = st.text(max_size=60) | st.sampled_from(["@", "a@", "@b", "\ud800@\x00", "::ffff:", "1" * 400])


@given(anything, anything, anything, anything)
def test_no_rubbish_breaks_a_judgement(ip: str, address: str, seal: str, proof: str) -> None:
    guard = SignupGuard(AbuseSettings(), secret=lambda: SECRET)
    for signed in (False, True):
        attempt = SignupAttempt(ip=ip, address=address, seal=seal, proof=proof, signed=signed)
        assert guard.judge(attempt).outcome in {Outcome.CHALLENGE, Outcome.ALLOWED}
    guard.form(ip)


class TestLimits:
    def test_one_ip_has_its_share(self, clock: Clock, tally: Tally) -> None:
        scene = Scene(clock, tally, per_ip="5/hour")
        visitor = scene.visitor("203.0.113.7")
        outcomes = [visitor.signs_up(f"r{number}@gmail.com").outcome for number in range(8)]
        assert outcomes == [Outcome.ALLOWED] * 5 + [Outcome.LIMITED] * 3
        limited = visitor.signs_up("r@gmail.com")
        assert limited.reason is Reason.IP
        assert 3500 < limited.retry_after < 3600
        assert scene.visitor("203.0.113.8").signs_up("s@gmail.com") == ALLOWED
        clock.move(hours=1)
        assert visitor.signs_up("r@gmail.com") == ALLOWED

    def test_of_ipv6_a_whole_line_is_one(self, clock: Clock) -> None:
        scene = Scene(clock, per_ip="5/hour")
        outcomes = [
            scene.visitor(f"2001:db8:1:2::{number:x}").signs_up(f"r{number}@gmail.com").outcome
            for number in range(1, 9)
        ]
        assert outcomes == [Outcome.ALLOWED] * 5 + [Outcome.LIMITED] * 3

    def test_who_hides_the_ip_shares_with_all_who_do(self, clock: Clock) -> None:
        scene = Scene(clock, per_ip="5/hour")
        outcomes = [scene.visitor("").signs_up(f"r{number}@gmail.com").outcome for number in range(8)]
        assert outcomes.count(Outcome.ALLOWED) == 5

    def test_one_mailbox_has_its_share_whatever_the_spelling_and_the_newsletter(self, clock: Clock) -> None:
        scene = Scene(clock, per_address="5/day", alarm_address="9/hour")
        spellings = ["li@gmail.com", "LI@gmail.com", "l.i@gmail.com", "li+a@gmail.com", "li@googlemail.com"]
        for number, address in enumerate(spellings):
            assert scene.visitor(f"2001:db8:{number:x}::1").signs_up(address) == ALLOWED
        limited = scene.visitor("203.0.113.7").signs_up("li+b@gmail.com")
        assert (limited.outcome, limited.reason) == (Outcome.LIMITED, Reason.ADDRESS)
        assert limited.retry_after > 86_000

    def test_a_company_s_domain_has_its_share_and_a_provider_s_has_none(self, clock: Clock) -> None:
        scene = Scene(clock, per_domain="3/hour")
        at = [
            [
                scene.visitor(f"2001:db8:{number:x}::1").signs_up(f"r{number}@{domain}").outcome
                for number in range(5)
            ]
            for domain in ("company.example", "qq.com")
        ]
        assert at[0] == [Outcome.ALLOWED] * 3 + [Outcome.LIMITED] * 2
        assert at[1] == [Outcome.ALLOWED] * 5

    def test_a_signed_webhook_is_judged_by_the_mailbox_alone(self, clock: Clock) -> None:
        scene = Scene(clock, per_ip="2/hour", per_address="2/day", attack_mode="on")
        sent = [SignupAttempt(ip="203.0.113.7", address="li@qq.com", signed=True) for _ in range(3)]
        assert [scene.guard.judge(each).outcome for each in sent] == ["allowed", "allowed", "limited"]
        staff = [
            SignupAttempt(ip="203.0.113.7", address=f"r{number}@company.example", signed=True)
            for number in range(99)
        ]
        assert {scene.guard.judge(each) for each in staff} == {ALLOWED}
        others = [
            SignupAttempt(ip="203.0.113.7", address=f"r{number}@qq.com", signed=True) for number in range(9)
        ]
        assert {scene.guard.judge(each) for each in others} == {ALLOWED}

    def test_eight_threads_do_not_get_more(self, clock: Clock, tally: Tally) -> None:
        scene = Scene(clock, tally, per_ip="1000/hour", alarm_address="1000/hour", alarm_network="1000/hour")
        form = scene.guard.form("203.0.113.7")
        clock.move(seconds=5)
        attempt = SignupAttempt(ip="203.0.113.7", address="li@qq.com", seal=form.seal)
        with ThreadPoolExecutor(8) as pool:
            verdicts = list(pool.map(lambda _: scene.guard.judge(attempt), range(200)))
        assert sum(verdict.allowed for verdict in verdicts) == 5

    def test_nobody_uses_up_a_mailbox_s_share_without_a_proof(self, clock: Clock) -> None:
        scene = Scene(clock, attack_mode="on", per_address="1/day")
        for number in range(20):
            attacker = scene.visitor(f"2001:db8:{number:x}::1")
            assert attacker.signs_up("victim@qq.com", proves=False) == ATTACK
        assert scene.visitor("203.0.113.7").signs_up("victim@qq.com") == ALLOWED


class TestAnAttack:
    def test_too_many_in_all_puts_everybody_to_work(self, clock: Clock, tally: Tally) -> None:
        scene = Scene(clock, tally, alarm_overall="20/hour")
        assert set(scene.crowd(20, after=2)) == {Outcome.ALLOWED}
        assert scene.crowd(1, after=2) == [Outcome.CHALLENGE], "its form had no challenge yet"
        assert set(scene.crowd(10, after=2, proves=False)) == {Outcome.CHALLENGE}
        assert set(scene.crowd(10, after=2)) == {Outcome.ALLOWED}

    def test_it_ends_by_itself_and_not_before(self, clock: Clock) -> None:
        scene = Scene(clock, alarm_overall="20/hour", alarm_lasts="30m")
        scene.crowd(25, after=2)
        clock.move(minutes=29)
        assert scene.guard.form("203.0.113.7").challenge
        scene.crowd(25, after=2)  # the window is still full: the alarm goes on
        clock.move(minutes=29)
        assert scene.guard.form("203.0.113.7").challenge
        clock.move(minutes=32)
        assert not scene.guard.form("203.0.113.7").challenge
        assert scene.crowd(1, proves=False) == [Outcome.ALLOWED]

    def test_a_network_that_sends_too_many_works_and_others_do_not(self, clock: Clock) -> None:
        scene = Scene(clock, alarm_network="10/hour")
        for number in range(11):
            scene.visitor(f"203.0.113.{number}").signs_up(f"r{number}@qq.com", after=2)
        assert scene.guard.form("203.0.113.200").challenge
        assert scene.visitor("203.0.113.200").signs_up("s@qq.com", proves=False) == ATTACK
        assert scene.visitor("198.51.100.1").signs_up("t@qq.com", proves=False) == ALLOWED
        assert [notice[0] for notice in scene.told] == ["signup-attack:2027-01-15"]
        assert "more than 10/hour sign-ups from the network 203.0.113.0/24" in scene.told[0][2]

    def test_a_48_of_ipv6_is_one_network(self, clock: Clock) -> None:
        scene = Scene(clock, alarm_network="10/hour")
        for number in range(11):
            scene.visitor(f"2001:db8:1:{number:x}::1").signs_up(f"r{number}@qq.com", after=2)
        assert scene.guard.form("2001:db8:1:ffff::1").challenge
        assert not scene.guard.form("2001:db8:2::1").challenge

    def test_many_for_one_mailbox_put_those_to_work_and_wake_nobody(self, clock: Clock) -> None:
        scene = Scene(clock, alarm_address="2/hour")
        networks = [f"2001:db8:{number:x}::1" for number in range(6)]
        verdicts = [scene.visitor(ip).signs_up("victim@qq.com") for ip in networks]
        assert verdicts == [ALLOWED] * 2 + [ATTACK] * 4
        insisted = scene.guard.form(networks[0], insist=True)
        attempt = SignupAttempt(
            ip=networks[0], address="victim@qq.com", seal=insisted.seal, proof=solved(insisted.challenge)
        )
        assert scene.guard.judge(attempt) == ALLOWED
        assert scene.visitor("203.0.113.7").signs_up("other@qq.com") == ALLOWED
        assert scene.told == []

    def test_the_operator_is_told_once_while_it_lasts(self, clock: Clock, tally: Tally) -> None:
        scene = Scene(clock, tally, alarm_overall="20/hour")
        scene.crowd(60, after=2)
        assert len(scene.told) == 1
        key, subject, body = scene.told[0]
        assert key == "signup-attack:2027-01-15"
        assert "proof of work" in subject
        assert "more than 20/hour sign-ups in all" in body
        assert "0:30:00" in body

    def test_a_day_s_alarms_are_one_notice(self, clock: Clock) -> None:
        scene = Scene(clock, alarm_overall="20/hour", alarm_lasts="5m")
        for _ in range(3):
            scene.crowd(25, after=2)
            clock.move(minutes=70)
        assert len(scene.told) == 3
        assert len({notice[0] for notice in scene.told}) == 1, "the operator's notices tell a key once"

    def test_limits_are_a_quarter_meanwhile(self, clock: Clock) -> None:
        scene = Scene(clock, attack_mode="on", per_ip="20/hour", per_domain="12/hour")
        visitor = scene.visitor("203.0.113.7")
        assert [visitor.signs_up(f"r{number}@qq.com").allowed for number in range(7)] == [True] * 5 + [
            False
        ] * 2
        outcomes = [
            scene.visitor(f"2001:db8:{number:x}::1").signs_up(f"r{number}@company.example")
            for number in range(5)
        ]
        assert [outcome.allowed for outcome in outcomes] == [True] * 3 + [False] * 2

    def test_modes_by_hand(self, clock: Clock) -> None:
        scene = Scene(clock, attack_mode="on")
        assert scene.guard.form("203.0.113.7").challenge
        assert scene.visitor("203.0.113.7").signs_up("li@qq.com", proves=False) == ATTACK
        scene = Scene(
            clock, attack_mode="off", alarm_overall="1/hour", alarm_network="1/hour", alarm_address="1/hour"
        )
        assert set(scene.crowd(30)) == {Outcome.ALLOWED}
        assert scene.told == []

    def test_a_proof_is_good_for_one_sign_up(self, clock: Clock) -> None:
        scene = Scene(clock, attack_mode="on")
        form = scene.guard.form("203.0.113.7")
        proof = solved(form.challenge)
        clock.move(seconds=3)
        verdicts = [
            scene.guard.judge(
                SignupAttempt(
                    ip=f"2001:db8:{number:x}::1", address=f"r{number}@qq.com", seal=form.seal, proof=proof
                )
            )
            for number in range(5)
        ]
        assert verdicts == [ALLOWED] + [ATTACK] * 4

    def test_without_javascript_a_few_wait_and_get_in(self, clock: Clock) -> None:
        scene = Scene(clock, attack_mode="on", without_script="3/hour", without_script_wait="20s")
        assert scene.crowd(1, after=19, proves=False) == [Outcome.CHALLENGE]
        assert scene.crowd(5, after=21, proves=False) == [Outcome.ALLOWED] * 3 + [Outcome.CHALLENGE] * 2
        assert scene.crowd(5, after=21) == [Outcome.ALLOWED] * 5, (
            "whoever brings a proof is not counted there"
        )
        clock.move(hours=1)
        assert scene.crowd(1, after=21, proves=False) == [Outcome.ALLOWED]

    def test_a_thousand_victims_from_as_many_machines_cost_as_many_proofs(self, clock: Clock) -> None:
        """A botnet at 60 a minute: what it gets for nothing is the alarm's number and the few without script."""
        scene = Scene(clock, alarm_overall="60/hour", without_script="5/hour")
        free = scene.crowd(1000, after=1, proves=False) + scene.crowd(300, after=2.1, proves=False)
        assert free.count(Outcome.ALLOWED) <= 65


class TestOpening:
    @pytest.mark.services
    def test_on_a_broker_processes_share_all(self, project: Project, redis_url: str) -> None:
        settings = project.settings(
            database={"url": "postgresql://db.example/news"},
            broker={"url": redis_url},
            signup={"abuse": {"per_address": "2/day", "alarm_address": "9/hour", "work": 1}},
        )
        guards = [guard_of(settings, no_news, lambda: SECRET) for _ in range(3)]
        form = guards[0].form("203.0.113.7", insist=True)
        proof = solved(form.challenge)
        attempts = [
            guard.judge(SignupAttempt(ip="203.0.113.7", address="li@qq.com", proof=proof)) for guard in guards
        ]
        assert attempts == [ALLOWED, FORM, FORM]
        signed = SignupAttempt(ip="", address="li@qq.com", signed=True)
        assert [guard.judge(signed).allowed for guard in guards] == [True, False, False]

    @pytest.mark.services
    def test_a_broker_that_is_not_there_opens_nothing_and_breaks_nothing(self, project: Project) -> None:
        settings = project.settings(
            database={"url": "postgresql://db.example/news"}, broker={"url": "redis://127.0.0.1:1/0"}
        )
        guard = guard_of(settings, no_news, lambda: SECRET)
        signed = SignupAttempt(ip="", address="li@qq.com", signed=True)
        assert sum(guard.judge(signed).allowed for _ in range(20)) == 5
        form = guard.form("203.0.113.7", insist=True)
        assert guard.judge(
            SignupAttempt(ip="203.0.113.7", address="a@qq.com", proof=solved(form.challenge))
        ).allowed


def no_news(_key: str, _subject: str, _body: str) -> None:
    """Tells nobody."""


class TestSettings:
    @pytest.mark.parametrize("rate", ["20/hour", "5/10 minutes", "1/day", "3/2 days"])
    def test_rates(self, rate: str) -> None:
        assert AbuseSettings(per_ip=rate).per_ip == rate

    @pytest.mark.parametrize(
        "rate", ["", "20", "0/hour", "20/fortnight", "20/hour; 1/minute", "-1/hour", "1 per day"]
    )
    def test_no_rates(self, rate: str) -> None:
        with pytest.raises(ValidationError, match="expected a rate such as"):
            AbuseSettings(per_ip=rate)
