"""Integrations that ship with redisq. They use its public names only, and never each other."""
