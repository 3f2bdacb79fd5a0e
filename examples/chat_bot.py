"""A chat bot's logic on RedisQ: it answers messages through a chat API that is slow and fails now and then.

    CHAT_API=localhost:8080 redisq worker chat_bot:app

`redisq demo` runs this very code.
"""

from __future__ import annotations

import json
import os
import signal
from http.client import HTTPConnection
from typing import Any

from redisq import RateLimited, RedisQ, Reject, Retry

# The demo is in a hurry. Leave lease= out of yours: the 30 s of the default bear a machine that stutters.
app = RedisQ("chat_bot", lease=3)


@app.task(queue="chat_api", key="{chat_id}", limits=["bot:30/s", "chat:{chat_id}"], max_retries=3, retry_backoff=0.5)
def answer(chat_id: int, message_id: int, text: str) -> None:
    """Answer one message: those of a chat one at a time and in order, all together 30 a second, over all workers.

    An error means another attempt, after a delay that doubles each time.
    """
    status, reply = post(f"/chats/{chat_id}/messages", {"reply_to": message_id, "text": f"You said: {text}"})
    if status == 429:  # with httpx, aiohttp, aiogram ... leave this out: the error that they raise is known
        raise RateLimited(reply["retry_after"], key=f"chat:{chat_id}")
    if status == 503:
        raise Retry("503, the chat API is busy", countdown=reply["retry_after"])
    if status == 403:
        raise Reject(f"403, {reply['error']}")  # no attempt will help: a dead letter at once
    if status != 200:
        raise RuntimeError(f"the chat API answered {status}")
    if reply.get("poison"):
        # The demo's poison message. In earnest: a crash in a C library, or too much memory.
        os.kill(os.getpid(), signal.SIGKILL)


def post(path: str, body: dict[str, Any]) -> tuple[int, Any]:
    """Send JSON to the chat API; return the status and the JSON that it answers. No answer within 3 s is an error."""
    connection = HTTPConnection(os.environ.get("CHAT_API", "localhost:8080"), timeout=3)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()
