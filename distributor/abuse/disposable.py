"""Addresses that die within the day: nobody reads a newsletter there, and each mail to them ends as a bounce."""

from collections.abc import Collection, Iterator
from functools import cache
from importlib.resources import files


class DisposableDomains:
    """The domains of the list beside this file, with an operator's changes. A domain stands for those below it as well."""

    def __init__(self, add: Collection[str] = (), allow: Collection[str] = ()) -> None:
        self._add, self._allow = frozenset(add), frozenset(allow)

    def __contains__(self, domain: str) -> bool:
        """The nearest entry decides: a domain allowed below a listed one is allowed, and the other way round."""
        for name in _upwards(domain):
            if name in self._allow:
                return False
            if name in self._add or name in listed():
                return True
        return False


@cache
def listed() -> frozenset[str]:
    """The packaged list."""
    text = files("distributor.abuse").joinpath("disposable.txt").read_text("utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


def _upwards(domain: str) -> Iterator[str]:
    """mail.box.example → mail.box.example, box.example, example."""
    labels = domain.lower().rstrip(".").split(".")
    return (".".join(labels[start:]) for start in range(len(labels)))
