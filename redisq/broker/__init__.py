"""The broker: keys, scripts, commands, and the two connectors that carry them. The only package that imports redis."""
