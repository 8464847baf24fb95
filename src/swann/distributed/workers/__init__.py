"""Workers: what each does with its shards, where they run, which has which shard."""
