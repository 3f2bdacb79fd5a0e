"""`python -m redisq`: the same as the command `redisq`."""

from redisq.cli.main import main

main(prog_name="redisq")
