"""What a build reads in spans: arrays, files of many kinds, chunks; none of it as a whole."""

from swann.sources.whole import Sources

__all__ = ["Sources"]
