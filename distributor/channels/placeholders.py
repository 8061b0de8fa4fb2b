"""Named placeholders of a frozen message, such as `__UNSUBSCRIBE_URL__`, filled in for one recipient.

A text is cut at its placeholders once and joined for each recipient: a value is never searched again, so a value that
looks like a placeholder stays what it is.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence


def cut(text: str, names: Collection[str]) -> Sequence[str]:
    """Splits `text` at `names`: plain text at the even places, a placeholder's name at the odd ones."""
    if not names:
        return (text,)
    longest_first = sorted(names, key=len, reverse=True)
    return tuple(re.split(f"({'|'.join(map(re.escape, longest_first))})", text))


def settle(pieces: Sequence[str], values: Mapping[str, str]) -> Sequence[str]:
    """`pieces` of `cut` with some placeholders filled in; the others still stand at the odd places."""
    settled = [pieces[0]]
    for name, text in zip(pieces[1::2], pieces[2::2], strict=True):
        if name in values:
            settled[-1] += values[name] + text
        else:
            settled += (name, text)
    return tuple(settled)


def require_values(names: Collection[str], values: Mapping[str, str]) -> None:
    """Raises ValueError when a placeholder has no value."""
    if missing := [name for name in names if name not in values]:
        raise ValueError(f"no value for the placeholder {', '.join(missing)}")


def fill(
    text: str, names: Collection[str], values: Mapping[str, str], escape: Callable[[str], str] = str
) -> str:
    """`text` with every placeholder replaced by its escaped value. Raises ValueError when one has none."""
    require_values(names, values)
    pieces = cut(text, {*names, *values})
    return "".join(escape(values[piece]) if place % 2 else piece for place, piece in enumerate(pieces))
