"""Pictures of posts: fetched with care, made fit for every reader's program, kept at a place of the operator's."""

from distributor.pictures.fetching import Fetched, FetchRules, fetch, is_public
from distributor.pictures.hosting import Fetch, Hosting, fetcher_of, hosting_of, rules_of
from distributor.pictures.picture import Kind, Picture, as_jpeg_or_png, sniff
from distributor.pictures.stores import FOR_EVER, NAME, FolderStore, S3Store, Store, name_of, store_of

__all__ = [
    "FOR_EVER",
    "NAME",
    "Fetch",
    "FetchRules",
    "Fetched",
    "FolderStore",
    "Hosting",
    "Kind",
    "Picture",
    "S3Store",
    "Store",
    "as_jpeg_or_png",
    "fetch",
    "fetcher_of",
    "hosting_of",
    "is_public",
    "name_of",
    "rules_of",
    "sniff",
    "store_of",
]
