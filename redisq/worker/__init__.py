"""The worker: claim, run, settle. One file a loop."""
