"""What each error of Redis means, read off the wire by redis-py (I28)."""

from __future__ import annotations

import asyncio

import pytest
import redis
import redis.asyncio
from redis import exceptions as redis_errors
from redis.backoff import NoBackoff
from redis.retry import Retry

from redisq import errors
from redisq.broker.faults import FAULTS, classify, is_noscript
from tests.wire import canned_server

NESTED = "ERR Error running script (call to f_0123): @user_script:40: @user_script: 40: -"

WAIT, REPORT = True, False

#: The reply as a server sends it -> what the caller gets, and whether waiting can help.
REPLIES = {
    "LOADING Redis is loading the dataset in memory": (errors.BrokerUnavailable, WAIT),
    "READONLY You can't write against a read only replica.": (errors.BrokerUnavailable, WAIT),
    f"{NESTED}READONLY You can't write against a read only replica.": (errors.BrokerUnavailable, WAIT),
    "READONLY You can't write against a read only replica. script: 01, on @user_script:1.": (errors.BrokerUnavailable, WAIT),
    "TRYAGAIN Multiple keys request during rehashing of slot": (errors.BrokerUnavailable, WAIT),
    "CLUSTERDOWN The cluster is down": (errors.BrokerUnavailable, WAIT),
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": (errors.BrokerUnavailable, WAIT),
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL.": (errors.BrokerUnavailable, WAIT),
    "NOREPLICAS Not enough good replicas to write.": (errors.BrokerUnavailable, WAIT),
    "UNBLOCKED force unblock from blocking operation, instance state changed": (errors.BrokerUnavailable, WAIT),
    "MOVED 3999 127.0.0.1:6381": (errors.WrongServer, REPORT),
    "ASK 3999 127.0.0.1:6381": (errors.WrongServer, REPORT),
    "CROSSSLOT Keys in request don't hash to the same slot": (errors.WrongServer, REPORT),
    "OOM command not allowed when used memory > 'maxmemory'.": (errors.BrokerFull, REPORT),
    f"{NESTED}OOM command not allowed when used memory > 'maxmemory'.": (errors.BrokerFull, REPORT),
    "MISCONF Redis is configured to save RDB snapshots, but cannot": (errors.BrokerFull, REPORT),
    "NOAUTH Authentication required.": (errors.AccessDenied, REPORT),
    "WRONGPASS invalid username-password pair or user is disabled.": (errors.AccessDenied, REPORT),
    "ERR invalid password": (errors.AccessDenied, REPORT),
    "NOPERM this user has no permissions to run the 'evalsha' command": (errors.AccessDenied, REPORT),
    "ERR The user executing the script can't run this command or subcommand script: 01, on @user_script:1.": (
        errors.AccessDenied, REPORT,
    ),
    "WRONGTYPE Operation against a key holding the wrong kind of value": (errors.QueueConflict, REPORT),
    f"{NESTED}WRONGTYPE Operation against a key holding the wrong kind of value": (errors.QueueConflict, REPORT),
    "ERR hash value is not an integer script: 01, on @user_script:1.": (errors.QueueConflict, REPORT),
    "REDISQ_LAYOUT queue BUSY has content": (errors.QueueConflict, REPORT),
    "REDISQ_CORRUPT key OOM:clock does not hold a number": (errors.QueueConflict, REPORT),
    "REDISQ_ARGUMENT settle takes": (errors.ProtocolError, REPORT),
    "REDISQ_SUPERSEDED call 1": (errors.ProtocolError, REPORT),
    "ERR unknown command 'EVALSHA'": (errors.BrokerError, REPORT),
}  # fmt: skip


def _error_of(reply: str) -> Exception:
    with canned_server(f"-{reply}".encode()) as port:
        client = redis.Redis(port=port, protocol=2, socket_timeout=5, retry=Retry(NoBackoff(), 0))
        with client, pytest.raises(redis.RedisError) as caught:
            client.execute_command("EVALSHA", "0" * 40, 0)
    return caught.value


async def _error_in_async_of(reply: str) -> Exception:
    with canned_server(f"-{reply}".encode()) as port:
        async with redis.asyncio.Redis(port=port, protocol=2, socket_timeout=5, retry=None) as client:
            with pytest.raises(redis.RedisError) as caught:
                await client.execute_command("EVALSHA", "0" * 40, 0)
    return caught.value


@pytest.mark.parametrize(("reply", "error", "retry"), [(reply, *meaning) for reply, meaning in REPLIES.items()])
def test_a_reply_means(reply: str, error: type[Exception], retry: bool) -> None:
    fault = classify(_error_of(reply))
    assert (fault.error, fault.retry) == (error, retry)
    assert classify(asyncio.run(_error_in_async_of(reply))) == fault


def test_every_kind_of_fault_is_in_the_table() -> None:
    named = {word for reply in REPLIES for word in FAULTS if reply.removeprefix(NESTED).removeprefix("ERR ").startswith(word)}
    assert named == set(FAULTS)


def test_only_a_replica_makes_old_connections_useless() -> None:
    assert {word for word, fault in FAULTS.items() if fault.reconnect} == {"READONLY"}


def test_what_is_not_retried_says_what_to_do() -> None:
    silent = {word for word, fault in FAULTS.items() if not fault.retry and not fault.advice}
    assert silent == {"REDISQ_ARGUMENT", "REDISQ_SUPERSEDED"}


def test_a_missing_password_is_told_from_a_wrong_one() -> None:
    assert classify(_error_of("NOAUTH Authentication required.")) == FAULTS["NOAUTH"]
    assert classify(_error_of("WRONGPASS invalid username-password pair")) == FAULTS["WRONGPASS"]


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError("refused"), ConnectionResetError("reset"), OSError("no route to host"), TimeoutError("timed out"),
        redis_errors.ConnectionError("Connection closed by server."), redis_errors.TimeoutError("Timeout reading from socket"),
        redis_errors.InvalidResponse("Protocol Error"), redis_errors.MaxConnectionsError("no connection available"),
    ],
    ids=lambda error: f"{type(error).__name__} {error}",
)  # fmt: skip
def test_a_broken_connection_is_worth_another_try(error: Exception) -> None:
    assert classify(error).retry
    assert classify(error).error is errors.BrokerUnavailable


def test_an_argument_that_redis_does_not_take_is_not_tried_again() -> None:
    fault = classify(redis_errors.DataError("Invalid input of type: 'object'"))
    assert (fault.error, fault.retry) == (errors.BrokerError, False)


def test_an_unknown_script_is_told_from_all_other_errors() -> None:
    assert is_noscript(_error_of("NOSCRIPT No matching script. Please use EVAL."))
    assert not is_noscript(_error_of("ERR NOSCRIPT"))


def test_a_server_that_hangs_up_is_worth_another_try() -> None:
    with canned_server(b"") as port, redis.Redis(port=port, protocol=2, socket_timeout=5, retry=Retry(NoBackoff(), 0)) as client:
        with pytest.raises(redis.RedisError) as caught:
            client.execute_command("EVALSHA")
        assert classify(caught.value).retry
