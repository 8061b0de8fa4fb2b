"""Messages to look at before anything is sent: as files (`files`), and as a page that follows the editor (`server`)."""

from distributor.preview.files import LIMITS, SAMPLE_RECIPIENT, SAMPLE_SITE, sample_values, write_preview

__all__ = ["LIMITS", "SAMPLE_RECIPIENT", "SAMPLE_SITE", "sample_values", "write_preview"]
