"""Timed speech: reading, cleaning, aligning and cutting into scripts."""
