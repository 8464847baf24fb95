"""Searching on many workers: what it costs, and what it survives."""
