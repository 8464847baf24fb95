"""Searching an index whose shards are on workers: what users open, and one query's way."""
