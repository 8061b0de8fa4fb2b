"""Independent checkers of messages, written from the platforms' rules.

They share no code with distributor.rendering or distributor.channels: what a renderer gets wrong, its checker must not
get wrong in the same way. `CHECKERS` is the table of what can be checked; a channel enters it with one line.
"""

from collections.abc import Callable, Mapping

from .article import check_article
from .mail import check_mail
from .rendering import Rendering, Report
from .source import Source, read_source
from .telegram import check_telegram
from .wecom import VARIANTS, check_wecom

Checker = Callable[[Rendering, Source], Report]

#: Channel and variant → its checker; the variant "*" stands for every one of the channel. What a destination asks for
#: besides ("text+split") changes no rule.
CHECKERS: Mapping[tuple[str, str], Checker] = {
    ("email", "*"): check_mail,
    ("telegram", "*"): check_telegram,
    ("wechat", "article"): check_article,
    **{("wecom", variant): check_wecom for variant in VARIANTS},
}

#: Channels that a checker stands ready for.
CHANNELS = tuple(dict.fromkeys(channel for channel, _ in CHECKERS))


def check_rendering(rendering: Rendering, source: Source) -> Report:
    """Holds a message against its platform's rules and its post. Raises LookupError for a variant nobody checks."""
    for key in ((rendering.channel, rendering.variant.partition("+")[0]), (rendering.channel, "*")):
        if key in CHECKERS:
            return CHECKERS[key](rendering, source)
    raise LookupError(f"no checker for {rendering.channel}/{rendering.variant}: add one to tests/checkers")


__all__ = ["CHANNELS", "CHECKERS", "Rendering", "Report", "Source", "check_rendering", "read_source"]
