"""Whether an attempt to join goes on."""

import logging
import math
import time
from collections.abc import Callable, Sequence

from distributor.abuse.alarms import Alarms, Tell, Watched
from distributor.abuse.attempts import Outcome, Reason, SignupAttempt, SignupForm, Verdict
from distributor.abuse.disposable import DisposableDomains
from distributor.abuse.proof import Proofs
from distributor.abuse.seal import Seals
from distributor.abuse.sources import Source, domain_of, key_of, mailbox_of, source_of
from distributor.abuse.tally import MemoryTally, Tally
from distributor.settings import AbuseSettings

log = logging.getLogger(__name__)

#: What an attempt costs while there is an alarm for it: limits by IP and domain are a quarter then.
DEARER = 4
ALLOWED = Verdict(Outcome.ALLOWED)


class SignupGuard:
    """One for each process; its methods may be called by any thread.

    secret: what forms and proofs are signed with; all processes that serve one form must have the same.
    tell: takes what the operator should know (key, subject, body); a key it knows already is not told again.
    """

    def __init__(
        self,
        settings: AbuseSettings,
        tally: Tally | None = None,
        *,
        secret: Callable[[], bytes],
        tell: Tell = lambda _key, _subject, _body: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings, self._secret = settings, secret
        self._tally: Tally = tally or MemoryTally(clock)
        self._quickest, self._longest = settings.quickest.total_seconds(), settings.form_lasts.total_seconds()
        self._wait = settings.without_script_wait.total_seconds()
        self._alarms = Alarms(settings, self._tally, tell, clock)
        self._seals = Seals(secret, clock)
        self._proofs = Proofs(settings.work, settings.proof_lasts, self._tally, secret=secret, clock=clock)
        self._disposable = DisposableDomains(settings.disposable_add, settings.disposable_allow)

    def form(self, ip: str, *, insist: bool = False) -> SignupForm:
        """What a form carries that is shown now. It has a challenge while there is an alarm, or when you `insist`."""
        asks = insist or self._alarms.on(self._crowd(source_of(ip)))
        challenge = self._proofs.challenge() if asks else ""
        return SignupForm(self._seals.new(), challenge, math.ceil(self._wait) if asks else 0)

    def judge(self, attempt: SignupAttempt) -> Verdict:
        """Counts the attempt and judges it. The same again may be judged differently: a proof is good once."""
        verdict = self._of_a_caller(attempt) if attempt.signed else self._of_a_visitor(attempt)
        if not verdict.allowed:
            network = "signed" if attempt.signed else source_of(attempt.ip).network
            log.info(
                "signup_%s reason=%s newsletter=%s network=%s",
                verdict.outcome,
                verdict.reason,
                attempt.newsletter,
                network,
            )
        return verdict

    def _of_a_visitor(self, attempt: SignupAttempt) -> Verdict:
        source = source_of(attempt.ip)
        watched = [*self._crowd(source), self._mailbox(attempt)]
        cost = DEARER if (alarm := self._alarms.on(watched)) else 1
        # First: who is over this one reaches none of the others' counts.
        if over := self._over(self.settings.per_ip, "ip", source.host, Reason.IP, cost):
            return over
        if attempt.trap:
            return Verdict(Outcome.DROPPED, Reason.TRAP)
        if refused := self._of_the_domain(attempt):
            return refused
        # Last what counts for the mailbox: whoever brings no proof uses up nothing of its owner's.
        return (
            self._of_the_form(attempt, watched, alarm=alarm) or self._of_the_mailbox(attempt, cost) or ALLOWED
        )

    def _of_a_caller(self, attempt: SignupAttempt) -> Verdict:
        """A form's server brings no proof, has visitors of its own to watch, and may have a company's whole staff to sign up."""
        return self._of_the_domain(attempt) or self._over_address(attempt) or ALLOWED

    def _of_the_domain(self, attempt: SignupAttempt) -> Verdict | None:
        if self.settings.disposable == "refuse" and domain_of(attempt.address) in self._disposable:
            return Verdict(Outcome.REFUSED, Reason.DISPOSABLE)
        return None

    def _of_the_form(
        self, attempt: SignupAttempt, watched: Sequence[Watched], *, alarm: bool
    ) -> Verdict | None:
        """None when it is good: by the proof, if it brings one, else by the time it was open."""
        proven = self._proofs.redeem(attempt.proof)
        age = self._seals.age(attempt.seal)
        open_for = age if age is not None and self._quickest <= age <= self._longest else None
        if not proven and open_for is None:
            return Verdict(Outcome.CHALLENGE, Reason.FORM)
        alarm = self._alarms.count(watched) or alarm
        if alarm and not (proven or self._without_script(open_for or 0.0)):
            return Verdict(Outcome.CHALLENGE, Reason.ATTACK)
        return None

    def _without_script(self, age: float) -> bool:
        """A few of those who cannot make the proof get in all the same: people without JavaScript, who wait a little.

        A program can wait as well. What it gains is one small number for the whole installation.
        """
        return age >= self._wait and self._tally.hit(self.settings.without_script, "without_script")

    def _of_the_mailbox(self, attempt: SignupAttempt, cost: int) -> Verdict | None:
        return self._over_domain(domain_of(attempt.address), cost) or self._over_address(attempt)

    def _over_domain(self, domain: str, cost: int) -> Verdict | None:
        if domain in self.settings.mailbox_providers:
            return None
        return self._over(self.settings.per_domain, "domain", domain, Reason.DOMAIN, cost)

    def _over_address(self, attempt: SignupAttempt) -> Verdict | None:
        return self._over(
            self.settings.per_address, "address", mailbox_of(attempt.address), Reason.ADDRESS, 1
        )

    def _over(self, rate: str, kind: str, value: str, reason: Reason, cost: int) -> Verdict | None:
        key = key_of(kind, value, self._secret())
        if self._tally.hit(rate, key, cost):
            return None
        return Verdict(Outcome.LIMITED, reason, max(1, math.ceil(self._tally.wait(rate, key, cost))))

    def _crowd(self, source: Source) -> Sequence[Watched]:
        """What is known of a visitor before the form is filled in."""
        of_network, of_all = self.settings.alarm_network, self.settings.alarm_overall
        return (
            Watched("overall", of_all, f"more than {of_all} sign-ups in all"),
            Watched(
                key_of("network", source.network, self._secret()),
                of_network,
                f"more than {of_network} sign-ups from the network {source.network}",
            ),
        )

    def _mailbox(self, attempt: SignupAttempt) -> Watched:
        mailbox = mailbox_of(attempt.address)
        return Watched(key_of("mailbox", mailbox, self._secret()), self.settings.alarm_address)
