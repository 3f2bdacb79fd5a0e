"""redisq's fixtures for pytest, found by the entry point `redisq`."""
