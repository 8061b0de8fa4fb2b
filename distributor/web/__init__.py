"""The pages behind the mail's links: leave a newsletter, read an issue in the browser, the site. GET changes nothing."""

from distributor.web.app import create_app

__all__ = ["create_app"]
