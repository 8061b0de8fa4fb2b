"""What an event does: recorded once, with its effect, whatever comes twice or in another order."""

from distributor.events.counting import gives_up
from distributor.events.recording import Events

__all__ = ["Events", "gives_up"]
