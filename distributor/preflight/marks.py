"""Markdown that did not work: marks that readers see as they are, and definitions that nobody reads."""

import re
from collections.abc import Iterator

from distributor.preflight.findings import Said, quoted
from distributor.preflight.proof import Proof

#: In the visible text, where a working mark is no mark any more. `b[i][j]`, `2**3**4` and "张**、李**" are none.
LITERAL = re.compile(
    r"(?<![A-Za-z0-9_\]])\[[^\[\]]{1,60}\]\[[^\[\]]{0,60}\]"
    r"|\[\^\d{1,3}\]"
    r"|(?<![A-Za-z0-9*)\]])\*\*(?=[\w“「《（(])[^*]{1,60}\*\*(?!\*)"
    r"|^#{2,6}(?=[^\s#])\S{1,40}"
)
#: In the source: the address is a link of its own by then. "[1]（https://…）" is a list of sources.
FULL_WIDTH_LINK = re.compile(r"\[(?!\d+\])[^\[\]`]{1,60}\]（\s?https?://[^）\s`]{1,500}）")


def literal(proof: Proof) -> Iterator[Said]:
    for line in proof.lines:
        text = line.text if line.unlinked is None else line.unlinked
        written = proof.source.get(line.number, "")  # "&#10;" in raw HTML is a line that no file has
        for match in (*LITERAL.finditer(text), *FULL_WIDTH_LINK.finditer(written)):
            yield Said(line.number, f"{quoted(match[0])} is shown to readers as it is")


def unused(proof: Proof) -> Iterator[Said]:
    for line, label in proof.reading.unused:
        yield Said(
            line, f"{quoted(f'[{label}]: …')} is a definition that nothing refers to: no reader sees it"
        )
