"""Chaos: the engine's processes are killed, frozen and cut off while a counting mail sink keeps the truth."""
