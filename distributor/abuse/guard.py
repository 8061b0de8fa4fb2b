"""Whether an attempt to join goes on."""

import time
from collections.abc import Callable

from distributor.abuse.attempts import Outcome, SignupAttempt, SignupForm, Verdict
from distributor.abuse.tally import MemoryTally, Tally
from distributor.settings import AbuseSettings

#: Tells the operator: key (told once), subject, body, as `Alerts.tell` has it.
Tell = Callable[[str, str, str], object]


class SignupGuard:
    """One for each process; its methods may be called by any thread, and never raise."""

    def __init__(
        self,
        settings: AbuseSettings,
        tally: Tally | None = None,
        *,
        secret: Callable[[], bytes] = lambda: b"",
        tell: Tell = lambda _key, _subject, _body: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings, self._tell, self._clock = settings, tell, clock
        self._tally: Tally = tally or MemoryTally(clock)
        self._secret = secret

    def form(self, ip: str, *, insist: bool = False) -> SignupForm:
        """What a form carries that is shown now. It asks for a proof of work while there is an alarm, or to `insist`."""
        return SignupForm(seal="")

    def judge(self, attempt: SignupAttempt) -> Verdict:
        """Counts the attempt and judges it. The same attempt again may be judged differently: a proof is good once."""
        return Verdict(Outcome.ALLOWED)
