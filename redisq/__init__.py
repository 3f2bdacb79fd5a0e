"""A task queue for chat bots on Redis sorted sets."""

__version__ = "0.1.0"
