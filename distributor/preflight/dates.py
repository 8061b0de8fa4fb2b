"""Dates that contradict each other: yesterday's title, last year's copyright, a Friday that is a Thursday."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta

from distributor.preflight.findings import Said, quoted
from distributor.preflight.proof import Proof
from distributor.preflight.reading import Line

FURTHEST_AHEAD = timedelta(days=2)
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# strftime would follow the server's locale
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HAN_DAYS = "一二三四五六日"

_MONTH = (
    r"(?P<name>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b\.?"
)
WRITTEN = (
    re.compile(r"(?<!\d)(?:(?P<year>20\d\d)\s*年\s*)?(?P<month>\d{1,2})\s*月\s*(?P<day>\d{1,2})\s*[日号]"),
    re.compile(
        r"(?<![\d./-])(?P<year>20\d\d)(?P<sep>[-/.])(?P<month>\d{1,2})(?P=sep)(?P<day>\d{1,2})(?![\d./-])"
    ),
    re.compile(
        rf"\b{_MONTH}\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\b(?:,?\s+(?P<year>20\d\d))?", re.IGNORECASE
    ),
    re.compile(rf"\b(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\s+{_MONTH}(?:\s+(?P<year>20\d\d))?", re.IGNORECASE),
)
WEEKDAY = re.compile(
    r"(?:星期|周|礼拜)(?P<han>[一二三四五六日天])"
    # not "Sun Microsystems": cut short, it stands before a mark or at the end
    r"|\b(?P<name>mon|tue|wed|thu|fri|sat|sun)(?:(?:day|sday|nesday|rsday|urday)\b|(?=[.,)）\]]|$))",
    re.IGNORECASE,
)
NEAR = timedelta(days=60)  # a date without a year that is further away may be another year's
#: What else a line that is only a date may hold.
AROUND_DATE = re.compile(
    r"[\s\d:：TZ+.,，。()（）|｜·/—–-]|发布|更新|[日早晚周]报|published|updated", re.IGNORECASE
)
#: Characters. A line with a thousand dates is read once, not a thousand times.
BESIDE, LONGEST_DATE_LINE = 40, 120
FIRST_PARAGRAPHS, LAST_PARAGRAPHS = 3, 3
#: What a title's own date stands between; a date inside a sentence is that of the news ("9月9日苹果发布会").
EDGE_BEFORE = re.compile(
    r"(?:^|[\[【(（|｜:：·•,，/—–-]|[日早晚周简]报|daily|weekly|news)\s*$", re.IGNORECASE
)
EDGE_AFTER = re.compile(r"\s*(?:$|[\]】)）|｜:：·•/—–-]|[日早晚周简]报|daily|weekly|news)", re.IGNORECASE)
COPYRIGHT = re.compile(
    r"(?:©|\(c\)|copyright|版权所有)[\s,，©]{0,20}(?:20\d\d\s*[-–—至]\s*)?(?P<year>20\d\d)(?!\s*[-–—至])",
    re.IGNORECASE,
)
TITLE_YEAR = re.compile(r"(?<!\d)(?P<year>20\d\d)(?!\d)")


@dataclass(frozen=True)
class Written:
    """A date in a text, from `start` to before `end`; without a year it is the one nearest to the post."""

    day: date
    start: int
    end: int
    sure: bool


def dates_in(text: str, near: date) -> Iterator[Written]:
    for pattern in WRITTEN:
        for match in pattern.finditer(text):
            parts = match.groupdict()
            month = int(parts["month"]) if parts.get("month") else MONTHS.index(parts["name"][:3].lower()) + 1
            years = [int(parts["year"])] if parts["year"] else [near.year, near.year - 1, near.year + 1]
            if found := _nearest(years, month, int(parts["day"]), near):
                sure = bool(parts["year"]) or abs(found - near) <= NEAR
                yield Written(found, match.start(), match.end(), sure)


def _nearest(years: list[int], month: int, day: int, near: date) -> date | None:
    possible: list[date] = []
    for year in years:
        with suppress(ValueError):
            possible.append(date(year, month, day))
    return min(possible, key=lambda one: abs(one - near), default=None)


def ahead(proof: Proof) -> Iterator[Said]:
    if proof.dated > proof.day + FURTHEST_AHEAD:
        days = (proof.dated - proof.day).days
        yield Said(proof.front.get("date"), f"the post is dated {proof.dated}, {days} days ahead")


def title_date(proof: Proof) -> Iterator[Said]:
    """The title's own date, not one in its sentence."""
    title = proof.post.title
    for written in dates_in(title, proof.dated):
        alone = EDGE_BEFORE.search(title[: written.start]) and EDGE_AFTER.match(title[written.end :])
        if alone and written.day != proof.dated and proof.post.date:
            said = title[written.start : written.end]
            yield Said(proof.title_line, f"the title says {quoted(said)}, the post is dated {proof.dated}")


def date_line(proof: Proof) -> Iterator[Said]:
    """A line at the top that is only a date. A day apart may be the time zone."""
    for paragraph in proof.reading.paragraphs[:FIRST_PARAGRAPHS] if proof.post.date else ():
        for line in paragraph:
            for written in dates_in(line.text, proof.dated) if len(line.text) <= LONGEST_DATE_LINE else ():
                rest = AROUND_DATE.sub(
                    "", WEEKDAY.sub("", line.text[: written.start] + line.text[written.end :])
                )
                if not rest.strip("> ") and abs(written.day - proof.dated) > timedelta(days=1):
                    said = line.text[written.start : written.end]
                    yield Said(
                        line.number, f"the text is headed {quoted(said)}, the post is dated {proof.dated}"
                    )


def title_year(proof: Proof) -> Iterator[Said]:
    """A year gone by, in a title without a full date; "2025 in review" of this January is none."""
    title = proof.post.title
    if not proof.post.date or any(True for _ in dates_in(title, proof.dated)):
        return
    for match in TITLE_YEAR.finditer(title):
        if int(match["year"]) < (proof.dated - timedelta(days=60)).year:
            yield Said(proof.title_line, f"the title says {match['year']}, the post is dated {proof.dated}")


def weekday(proof: Proof) -> Iterator[Said]:
    """A weekday right beside a date, anywhere in the post."""
    for line in (Line(proof.title_line or 0, proof.post.title), *proof.lines):
        for written in dates_in(line.text, proof.dated) if WEEKDAY.search(line.text) else ():
            said = _weekday_beside(line.text, written)
            if said is not None and written.sure and said != written.day.weekday():
                text = f"{written.day} is a {DAYS[written.day.weekday()]}, not a {DAYS[said]}"
                yield Said(line.number or None, text)


def _weekday_beside(text: str, written: Written) -> int | None:
    """0 for Monday … 6; None when no weekday touches the date, brackets and commas between them aside."""
    day = rf"(?:{WEEKDAY.pattern})"
    left, right = (
        text[max(0, written.start - BESIDE) : written.start],
        text[written.end : written.end + BESIDE],
    )
    before = re.search(rf"{day}[\s,，()（）\]]*$", left, re.IGNORECASE)
    after = re.match(rf"[\s(（\[]*{day}", right, re.IGNORECASE)
    # "3月5日，周五见": behind a comma a sentence may go on with another day
    apart = re.match(rf"[\s,，]*{day}(?![\u4e00-\u9fff])", right, re.IGNORECASE)
    match = before or after or apart
    if match is None:
        return None
    if match["han"]:
        return HAN_DAYS.index(match["han"].replace("天", "日"))
    return next(number for number, name in enumerate(DAYS) if name[:3].lower() == match["name"].lower())


def copyright_year(proof: Proof) -> Iterator[Said]:
    """At the end, where the newsletter's own stands; further up it is a picture's."""
    last = proof.reading.paragraphs[-LAST_PARAGRAPHS:]
    for line in (line for paragraph in last for line in paragraph):
        for match in COPYRIGHT.finditer(line.text):
            if int(match["year"]) != proof.dated.year:
                yield Said(line.number, f"{quoted(match[0])} in a post of {proof.dated.year}")
