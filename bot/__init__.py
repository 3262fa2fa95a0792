"""Apprentice, the reviewing half: everything between a change and the student that reads it."""

__version__ = "0.1.0"
