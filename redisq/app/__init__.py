"""The producer's side and what both sides share: the app, its tasks, its jobs."""
