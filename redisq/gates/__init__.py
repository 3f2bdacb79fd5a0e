"""Gates: what may hold a message back though a worker is free. Lanes, limits, pauses; here only what needs no Redis.

`limit` reads the limits' grammar, `template` makes names of arguments, `descriptor` writes both as the line that the
scripts read, `limited` knows a chat platform's "too many requests" by its shape.
"""
