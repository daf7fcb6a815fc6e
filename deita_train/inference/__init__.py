"""Forward passes over a pool: batches by token budget, shards that survive a kill, ranks."""
