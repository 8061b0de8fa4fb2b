"""Sends a Markdown newsletter by e-mail, Telegram and WeChat, with a row for every delivery."""

from importlib.metadata import version

__version__ = version("distributor")
