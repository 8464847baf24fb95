"""Allocations that fail, one after the other: MemoryError, and the index still answers."""
