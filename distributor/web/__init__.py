"""The web: pages for readers, where GET changes nothing, and interfaces for programs."""

from distributor.web.app import create_app

__all__ = ["create_app"]
