"""`redisq demo`: a chat bot at work against a slow and flaky chat API, with real processes; nothing is left behind.

bot.py       the bot, as `examples/chat_bot.py` has it
traffic.py   the 200 messages, and what goes wrong with them
chat_api.py  the chat API that they are answered through
server.py    the Redis, in a temporary folder
workers.py   the worker processes
run.py       wires these together and watches
result.py    what came out of it
show.py, live.py, end.py   how it is shown: as lines, with rich, at the end
"""
