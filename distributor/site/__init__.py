"""The site: the home of the full text. A page for each post that went out, an index, an Atom feed.

The web app renders the pages when they are asked for; with `site.folder` they are files as well, written when an issue
opens, before its first delivery leaves, so that the link of the first reader works.

The ledger knows which posts went out, but holds their messages, not their source: a page is made from the file as it is
then. Where the file is gone the page that was written stays, and no page is ever deleted.
"""

from distributor.site.entries import went_out
from distributor.site.pages import POLICY
from distributor.site.publishing import Built, Site, write_whole

__all__ = ["POLICY", "Built", "Site", "went_out", "write_whole"]
