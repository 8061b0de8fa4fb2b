"""Readers from elsewhere, many at once: a CSV, or what another system exports; and out again."""

from distributor.audience.importing.ahead import in_batches
from distributor.audience.importing.old_links import OldLinks, ghost_link, listmonk_link
from distributor.audience.importing.origins import ORIGINS, Origin, Reading, understand
from distributor.audience.importing.sheets import Sheet, sheets_of
from distributor.audience.importing.undoing import Undo
from distributor.audience.importing.values import (
    Given,
    Import,
    ImportOrder,
    ImportReport,
    Line,
    Refusal,
    Source,
    Standing,
    Undoing,
    Verdict,
)
from distributor.audience.importing.windows import Imports

__all__ = [
    "ORIGINS",
    "Given",
    "Import",
    "ImportOrder",
    "ImportReport",
    "Imports",
    "Line",
    "OldLinks",
    "Origin",
    "Reading",
    "Refusal",
    "Sheet",
    "Source",
    "Standing",
    "Undo",
    "Undoing",
    "Verdict",
    "ghost_link",
    "in_batches",
    "listmonk_link",
    "sheets_of",
    "understand",
]
