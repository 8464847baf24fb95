"""Damaged indexes of swann: refused, or the answers of the whole one; lies: no harm."""
