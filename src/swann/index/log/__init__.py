"""The log of changes: its bytes, writing it, reading it."""
