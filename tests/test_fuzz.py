"""Random posts on every channel: no crash, no limit broken, the text in order, no link lost.

`FUZZ_DOCUMENTS` sets how many; a run with it is random, one without repeats the same 200.
"""

import os
import re

import pytest
from checkers import Source, check_rendering, read_source
from corpus.rendered import channels, renderings
from hypothesis import HealthCheck, Phase, assume, given, note, settings
from markdown_strategies import documents, soup
from rendering_samples import make_post

from distributor.errors import PostError
from distributor.model import Post

DOCUMENTS = int(os.environ.get("FUZZ_DOCUMENTS", "200"))
#: What raw HTML that is broken means is the browser's own business.
_MEANING = re.compile(r"(?:html: |text: |rich: )?(?:(?:text|links|markup|hidden): |content is empty)")
#: Marks that are left over are text where they stand at random; in the corpus they are not.
_MARKS = re.compile(r"(?:html: |text: |rich: )?markup: ")
#: A digest is cut, and where an address with bare Han in it ends, nobody can tell.
_HALF = re.compile(r"wecom.*: links: '[^']*' is none of the post's")
_BARE_HAN = re.compile(r"https?://[^\s<>)]*[\u00c0-\u9fff]")


def fuzzing(share: float) -> settings:
    return settings(
        max_examples=max(int(DOCUMENTS * share), 1),
        deadline=None,
        # Shrinking costs minutes here; a failing post is printed whole, and FUZZ_SHRINK=1 makes it small.
        phases=[Phase.generate, *([Phase.reuse, Phase.shrink] if os.environ.get("FUZZ_SHRINK") else [])],
        derandomize="FUZZ_DOCUMENTS" not in os.environ,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
    )


def found_in(body: str) -> list[str]:
    """Violations that count."""
    has_han = _BARE_HAN.search(body)
    return [line for line in violations(body) if not (has_han and _HALF.match(line))]


def violations(body: str) -> list[str]:
    """Everything that is wrong with the post on any channel."""
    source, post = read_source(body), make_post(body)
    assume(source.pieces)  # a post that says nothing is another test's
    return [found for channel in channels() for found in violations_on(channel, post, source)]


def violations_on(channel: str, post: Post, source: Source) -> list[str]:
    """Nothing when the post is refused for an address that leads nowhere."""
    try:
        reports = [(rendering, check_rendering(rendering, source)) for rendering in renderings(post, channel)]
    except PostError as error:
        return (
            []
            if ("nowhere" in str(error) and error.line) or "can be seen" in str(error)
            else [f"{channel}: refused: {error}"]
        )
    return [f"{rendering.name}: {found}" for rendering, report in reports for found in report.violations]


@pytest.mark.timeout(0)
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@fuzzing(0.75)
@given(documents)
def test_any_document_keeps_every_rule(body: str) -> None:
    said = [(line, line.partition(": ")[2]) for line in found_in(body)]
    found = [line for line, what in said if not _MARKS.match(what)]
    note("\n".join(found))
    assert not found


@pytest.mark.timeout(0)
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@fuzzing(0.25)
@given(soup)
def test_soup_breaks_nothing(body: str) -> None:
    broken = read_source(body).raw_html
    said = [(line, line.partition(": ")[2]) for line in found_in(body)]
    found = [line for line, what in said if not (_MEANING if broken else _MARKS).match(what)]
    note("\n".join(found))
    assert not found
