"""How an index is built: from a database to a `PackedIndex`."""
