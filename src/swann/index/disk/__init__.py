"""An index on disk: its files, its manifest, the lock of its writer, whole or in shards."""
