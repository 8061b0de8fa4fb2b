"""Links: where they seem to lead, and what their texts say."""

import ipaddress
import re
from collections import defaultdict
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote, urlsplit

from distributor.preflight.findings import Said, gathered, quoted
from distributor.preflight.proof import Proof
from distributor.preflight.reading import Link, brief, host_of
from distributor.rendering import is_web

MAIL = re.compile(r"mailto:[^@\s]+@[^@\s]+", re.IGNORECASE)

#: Filters and readers trust them less than the address behind them, and they die with their company.
SHORTENERS = frozenset(
    (
        *("bit.ly", "bitly.com", "t.co", "goo.gl", "tinyurl.com", "is.gd", "v.gd", "ow.ly", "buff.ly"),
        *("rebrand.ly", "cutt.ly", "dlvr.it", "j.mp", "lnkd.in", "tiny.cc", "rb.gy", "shorturl.at", "t.ly"),
        *("git.io", "s.id", "shorturl.com", "adf.ly", "bl.ink", "soo.gd", "reurl.cc", "ppt.cc", "lihi.cc"),
        *(
            "suo.im",
            "suo.nz",
            "dwz.cn",
            "t.cn",
            "url.cn",
            "w.url.cn",
            "0x9.me",
            "mrw.so",
            "sourl.cn",
            "985.so",
        ),
        *(
            "dwz.win",
            "dwz.date",
            "u.nu",
            "c1n.cn",
            "tb.cn",
            "m.tb.cn",
            "u.jd.com",
            "r6a.cn",
            "6du.in",
            "b23.tv",
        ),
    )
)
TRACKING = re.compile(
    r"utm_\w+|fbclid|gclid|dclid|msclkid|yclid|igshid|mc_[ce]id|_hs\w+|spm|scm|vero_\w+|oly_\w+|wt_mc"
    r"|share_\w+|vd_source|xsec_token|from_source|spm_id_from|_openstat|mkt_tok",
    re.IGNORECASE,
)
SAYS_NOTHING = frozenset(
    (
        *(
            "点击这里",
            "点这里",
            "点击",
            "点我",
            "点此",
            "请点击",
            "戳这里",
            "戳我",
            "这里",
            "此处",
            "链接",
            "网址",
        ),
        *("这个链接", "here", "click here", "click", "link", "this link", "this", "more", "read more"),
    )
)
REPEATED = (
    3  # so often may one text lead to different places before a screen reader's list of links is no help
)
PRIVATE = re.compile(r"(^|\.)(localhost|local|internal|intranet|lan|home\.arpa)$")
WRITTEN_ADDRESS = re.compile(r"(?:https?://|www\.)[^\s/]+\S*", re.IGNORECASE)
SWALLOWED = re.compile(r"(?:[。，、；：！？”’」』》】,;]|\s)+$")
BRACKETS = (("(", ")"), ("（", "）"), ("[", "]"))


def web_links(proof: Proof) -> Iterator[Link]:
    return (link for link in proof.reading.links if is_web(link.address))


def nowhere(proof: Proof) -> Iterator[Said]:
    """What rendering refuses too, but all of them at once."""
    for link in proof.reading.links:
        if not (is_web(link.address) or MAIL.fullmatch(link.address) or link.address.startswith("#")):
            yield Said(link.defined, f"a link to nowhere: {link.address!r}")


def dead_looking(proof: Proof) -> Iterator[Said]:
    for link in web_links(proof):
        host = host_of(link.address)
        no_name = "." not in host.strip(".") and ":" not in host and not PRIVATE.search(host)
        if no_name or ".." in host:
            yield Said(link.defined, f"{brief(link.address)} does not look like an address that exists")


def private(proof: Proof) -> Iterator[Said]:
    for link in web_links(proof):
        if is_private(host_of(link.address)):
            yield Said(link.defined, f"{brief(link.address)} exists on your own computer or network alone")


def is_private(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host.strip("[]")).is_global
    except ValueError:
        return bool(PRIVATE.search(host))


def swallowed(proof: Proof) -> Iterator[Said]:
    for link in web_links(proof):
        address = unquote(link.address)
        if SWALLOWED.search(address) or any(
            address.endswith(closing) and address.count(opening) < address.count(closing)
            for opening, closing in BRACKETS
        ):
            yield Said(
                link.defined, f"the address {brief(address)} ends with what seems to be the sentence's"
            )


def insecure(proof: Proof) -> Iterator[Said]:
    lines = [link.defined for link in web_links(proof) if link.address.lower().startswith("http:")]
    return gathered(lines, f"{_count(lines, 'link')} with http://, which mail clients warn about")


def shortened(proof: Proof) -> Iterator[Said]:
    for link in web_links(proof):
        if host_of(link.address).removeprefix("www.") in SHORTENERS:
            yield Said(link.defined, f"{brief(link.address)} hides where it leads; mail filters score that")


def tracking(proof: Proof) -> Iterator[Said]:
    found = [
        (link.defined, name)
        for link in web_links(proof)
        for name, _ in parse_qsl(urlsplit(link.address).query, keep_blank_values=True)
        if TRACKING.fullmatch(name)
    ]
    names = ", ".join(dict.fromkeys(name for _, name in found))
    return gathered([line for line, _ in found], f"somebody else's tracking in a link: {names}")


def says_nothing(proof: Proof) -> Iterator[Said]:
    found = [link for link in proof.reading.links if _bare(link.text) in SAYS_NOTHING]
    texts = ", ".join(dict.fromkeys(quoted(link.text) for link in found))
    return gathered([link.line for link in found], f"a link's text does not say where it leads: {texts}")


def same_text(proof: Proof) -> Iterator[Said]:
    by_text: dict[str, list[Link]] = defaultdict(list)
    for link in proof.reading.links:
        if _bare(link.text) not in SAYS_NOTHING and link.text.strip():
            by_text[_bare(link.text)].append(link)
    for links in by_text.values():
        if len({link.address for link in links}) >= REPEATED:
            text = f"{quoted(links[0].text)} is the text of {len(links)} links to different places"
            yield from gathered([link.line for link in links], text)


def other_address(proof: Proof) -> Iterator[Said]:
    """A text that is an address, of another site than the link leads to: what phishing looks like."""
    for link in web_links(proof):
        written = link.text.strip()
        if not WRITTEN_ADDRESS.fullmatch(written):
            continue
        says = host_of(written if "://" in written else f"https://{written}").removeprefix("www.")
        leads = host_of(link.address).removeprefix("www.")
        if says and not (says == leads or leads.endswith(f".{says}") or says.endswith(f".{leads}")):
            yield Said(link.line, f"the text says {brief(written)}, the link leads to {leads}")


def _bare(text: str) -> str:
    return text.strip(" \t\n>»→【】[]（）().。：:👉").lower()


def _count(lines: list[int], what: str) -> str:
    return f"{len(lines)} {what}" + ("s" if len(lines) > 1 else "")
