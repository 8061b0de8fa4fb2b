"""Pictures of posts: fetched with care, made fit for every reader's program."""

from distributor.pictures.fetching import Fetched, FetchRules, fetch, is_public
from distributor.pictures.picture import Kind, Picture, as_jpeg_or_png, sniff

__all__ = [
    "FetchRules",
    "Fetched",
    "Kind",
    "Picture",
    "as_jpeg_or_png",
    "fetch",
    "is_public",
    "sniff",
]
