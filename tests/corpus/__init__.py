"""Posts of our own wording that use what editors use, and a table of what every channel makes of them."""
