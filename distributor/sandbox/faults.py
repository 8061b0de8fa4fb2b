"""Faults on demand: which address meets which misfortune, and how often before it is well again."""

import threading
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

#: channel → fault kind → what happens
KINDS: Mapping[str, Mapping[str, str]] = {
    "email": {
        "refuse": "RCPT is answered 550 5.1.1, user unknown",
        "refuse-bare": "RCPT is answered 550 without an enhanced code",
        "defer": "RCPT is answered 450 4.2.1, mailbox busy",
        "throttle": "RCPT is answered as QQ does: 550 Domain frequency limited",
        "spam": "the message is answered as 163 does: 554 DT:SPM",
        "drop-before-dot": "the connection breaks inside the message; nothing is kept",
        "drop-after-dot": "the message is kept, then the connection breaks without an answer",
        "slow": "the message is kept, the answer comes `value` seconds later (default 5)",
        "login": "AUTH is answered 535; the pattern is for the user name",
        "down": "the greeting is 421; the pattern is for the client's IP address",
    },
    "telegram": {
        "blocked": "403 bot was blocked by the user",
        "deactivated": "403 user is deactivated",
        "missing": "400 chat not found",
        "migrated": "400 with migrate_to_chat_id = `value`",
        "throttle": "429 with retry_after = `value` seconds (default 2)",
        "server-error": "502, nothing is kept",
        "server-error-after-accept": "the message is kept, the answer is 502",
        "garbage": "the message is kept, the answer is 200 without JSON",
        "drop-after-accept": "the message is kept, then the connection breaks without an answer",
        "slow": "the message is kept, the answer comes `value` seconds later (default 5)",
        "bad-token": "401 for every method; the pattern is for the bot's id",
        "uneditable": "editMessageText is answered 400, message can't be edited",
        "old-server": "404 for sendRichMessage, as before Bot API 10.1; the pattern is for the bot's id",
    },
    "wecom": {
        "disabled": "93000 invalid webhook url",
        "busy": "-1 system busy",
        "throttle": "45009 api freq out of limit",
        "drop-after-accept": "the message is kept, then the connection breaks without an answer",
        "slow": "the message is kept, the answer comes `value` seconds later (default 5)",
    },
    "wechat": {
        "personal": "48001 for publishing and mass sending; drafts are taken",
        "unverified": "the same, of an enterprise",
        "expired": "48001 for everything: the verification has run out",
        "ip-list": "40164 not in whitelist",
        "secret": "40125 invalid appsecret",
        "frozen": "40243 AppSecret is frozen",
        "stale-token": "42001 access_token expired, although it is not",
        "busy": "-1 system error",
        "quota": "45009 reach max api daily quota limit",
        "publish-fails": "a publication ends with publish_status = `value` (default 3)",
        "drop-after-accept": "the draft or message is kept, then the connection breaks without an answer",
        "garbage": "the draft or message is kept, the answer is no JSON",
        "slow": "the draft or message is kept, the answer comes `value` seconds later (default 5)",
    },
}


@dataclass(frozen=True)
class Fault:
    """A rule. `pattern` is a shell pattern over the address; `times` counts for each address, None is for ever.

    Raises ValueError for a channel or kind that does not exist, or a value that makes no sense.
    """

    channel: str
    pattern: str
    kind: str
    times: int | None = None
    value: float | None = None

    def __post_init__(self) -> None:
        if self.channel not in KINDS:
            raise ValueError(f"no channel {self.channel!r}; there are: {', '.join(KINDS)}")
        if self.kind not in KINDS[self.channel]:
            raise ValueError(
                f"{self.channel} has no fault {self.kind!r}; there are: {', '.join(KINDS[self.channel])}"
            )
        if self.times is not None and (not _is_number(self.times, int) or self.times < 1):
            raise ValueError("`times` is a whole number above 0, or absent")
        if self.value is not None and not _is_number(self.value, int, float):
            raise ValueError("`value` is a number, or absent")
        if self.kind == "migrated" and self.value is None:
            raise ValueError("the fault 'migrated' needs the new chat id as `value`")

    @classmethod
    def from_json(cls, data: object) -> "Fault":
        """Raises ValueError for anything that is not a rule."""
        if not isinstance(data, dict) or not all(
            isinstance(data.get(key), str) for key in ("channel", "pattern", "kind")
        ):
            raise ValueError("a fault is an object with the texts channel, pattern and kind")
        if unknown := data.keys() - {"channel", "pattern", "kind", "times", "value"}:
            raise ValueError(f"unknown key: {', '.join(sorted(unknown))}")
        return cls(**data)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def seconds(self, default: float) -> float:
        return default if self.value is None else float(self.value)

    def concerns(self, channel: str, address: str) -> bool:
        return self.channel == channel and fnmatchcase(address.lower(), self.pattern.lower())


class Faults:
    """The rules in force; thread-safe. The first rule that fits and is not used up wins."""

    def __init__(self, rules: Sequence[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._rules = list(rules)
        self._used: Counter[tuple[Fault, str]] = Counter()

    @property
    def rules(self) -> tuple[Fault, ...]:
        with self._lock:
            return tuple(self._rules)

    def add(self, *rules: Fault) -> None:
        with self._lock:
            self._rules.extend(rules)

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()
            self._used.clear()

    def take(self, channel: str, address: str, kinds: Collection[str]) -> Fault | None:
        """The fault this address meets now, among `kinds`; it counts as used."""
        if not self._rules:
            return None
        with self._lock:
            for rule in self._rules:
                if rule.kind in kinds and rule.concerns(channel, address) and self._use(rule, address):
                    return rule
        return None

    def _use(self, rule: Fault, address: str) -> bool:
        if rule.times is None:
            return True
        key = (rule, address.lower())
        self._used[key] += 1
        return self._used[key] <= rule.times


def demo_faults() -> list[Fault]:
    """What the demo's made-up addresses meet, by their names.

    E-mail: `refused-*` never exists, `busy-*` and `throttled-*` are well at the second try. Telegram: the chats
    900100 to 900199 have blocked the bot, 900200 to 900299 are throttled once for two seconds.
    """
    return [
        Fault("email", "refused-*@*", "refuse"),
        Fault("email", "busy-*@*", "defer", times=1),
        Fault("email", "throttled-*@*", "throttle", times=1),
        Fault("telegram", "9001[0-9][0-9]", "blocked"),
        Fault("telegram", "9002[0-9][0-9]", "throttle", times=1, value=2),
    ]


def _is_number(value: object, *types: type) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)
