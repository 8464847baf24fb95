"""Changes to an index in shards, and the log that makes them last."""
