"""Lists, page by page: `next` of one page is the `cursor` of the following one, and null at the end.

A cursor names the last row of a page, so nothing is left out or told twice while rows are added. What stands in it is
nobody's business but ours.
"""

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

from distributor.web.problems import Problem, Wrong

Row = TypeVar("Row")
Shown = TypeVar("Shown", bound=BaseModel)

#: Rows of a page.
MOST, USUAL = 500, 100
CursorText = Annotated[str | None, Query(max_length=100, description="next of the page before")]
PageSize = Annotated[int, Query(ge=1, le=MOST, description="rows of a page")]

Place = tuple[int, ...]


class Page(BaseModel, Generic[Shown]):
    """Some rows of a list."""

    items: Sequence[Shown]
    next: str | None = Field(description="the cursor of the following page; null at the end")


@dataclass(frozen=True)
class Listing(Generic[Row]):
    """A list and its cursors; `place` is what its order goes by. A cursor of another list is refused."""

    name: str
    place: Callable[[Row], Place]

    def read(self, cursor: str | None) -> Place | None:
        """Where the page before ended; None: at the beginning. Raises Problem."""
        if not cursor:
            return None
        found = re.fullmatch(rf"{self.name}((?: [0-9]{{1,15}})+)", _decoded(cursor))
        numbers = tuple(map(int, found[1].split())) if found else ()
        if not numbers:
            raise Problem(
                "wrong-fields",
                "nothing was done",
                [Wrong(detail="no cursor of this list", parameter="cursor")],
            )
        return numbers

    def page(self, found: Sequence[Row], limit: int, show: Callable[[Row], Shown]) -> Page[Shown]:
        """Of `limit` rows and one more, if there is one: that one says that the list goes on."""
        rows = found[:limit]
        more = len(found) > limit
        return Page(items=list(map(show, rows)), next=self._cursor(rows[-1]) if more else None)

    def _cursor(self, row: Row) -> str:
        text = " ".join([self.name, *map(str, self.place(row))])
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decoded(cursor: str) -> str:
    try:
        return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        return ""
