"""A file a library."""
