"""kombu's channel: what a program says is put into commands; what comes is handed to its callbacks."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from amqp.exceptions import RecoverableConnectionError
from kombu.exceptions import ChannelError
from kombu.transport import virtual
from kombu.transport.base import to_rabbitmq_queue_arguments
from kombu.transport.virtual.base import UNDELIVERABLE_FMT, UndeliverableWarning
from kombu.utils.uuid import uuid

from redisq.broker import commands
from redisq.broker.commands import Command
from redisq.broker.queues import layouts
from redisq.broker.sweep import delete_queue, remove_all
from redisq.errors import BrokerError, DecodeError
from redisq.kombu.asked import sending, to_send
from redisq.kombu.batch import PublishBatch
from redisq.kombu.consumer import Subscription
from redisq.kombu.convert import decode, encode, mark, to_enqueue
from redisq.kombu.held import Held
from redisq.kombu.options import Options
from redisq.kombu.qos import QoS
from redisq.kombu.steps import run
from redisq.message import check_id
from redisq.redact import escape

__all__ = ["Channel"]

_log = logging.getLogger("redisq.kombu")

#: What reading a message raises that somebody made odd.
_UNREADABLE = (DecodeError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Channel(virtual.Channel):
    """A virtual channel on redisq's queues."""

    QoS = QoS
    supports_fanout = True
    # The body travels as it is.
    body_encoding = None
    max_priority = 255
    from_transport_options = ("deadletter_queue",)

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self._session = connection.session
        self._callbacks: dict[str, tuple[Any, bool]] = {}
        # kombu takes a channel that could be made for a connection that works.
        with self._doing("open a channel"):
            self._session.once.execute(Command("", None, ("PING",), bool))

    @property
    def options(self) -> Options:
        """The transport's options."""
        options: Options = self._session.options
        return options

    def _check_open(self) -> None:
        # Its session would connect anew, and nobody would close that. What was delivered is acknowledged by other ways.
        if self.closed:
            raise RecoverableConnectionError("channel disconnected")

    @contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        """Name what the program asked for in an error of Redis, in place of the script that met it.

        Args:
            what: What is done. kombu does much of it before it sends a message, too, when the program knows of the message alone.
        """
        try:
            yield
        except BrokerError as error:
            asked = sending()
            raise _named(error, f"{asked} ({what})" if asked else what) from error.__cause__

    def _run(self, command: Command[Any]) -> Any:
        self._check_open()
        return self._session.connector.execute(command)

    def _run_many(self, several: list[Command[Any]]) -> list[Any]:
        self._check_open()
        results: list[Any] = self._session.connector.execute_many(several)
        for result in results:
            if isinstance(result, BrokerError):
                raise result
        return results

    # Queues

    def prepare_queue_arguments(self, arguments: Any, **kwargs: Any) -> Any:
        """Queue options by the names that RabbitMQ gives them."""
        return to_rabbitmq_queue_arguments(arguments or {}, **kwargs)

    def queue_declare(self, queue: str | None = None, passive: bool = False, **kwargs: Any) -> Any:
        """Declare a queue, or with `passive` ask how many messages wait in it."""
        self._check_open()
        queue = queue or f"amq.gen-{uuid()}"
        with self._doing(f"declare queue {queue}"):
            return self._queue_declare(queue, passive, **kwargs)

    def _queue_declare(self, queue: str, passive: bool, **kwargs: Any) -> Any:
        if not passive:
            self._session.routing.set_rules(queue, kwargs.get("arguments") or {}, auto_delete=bool(kwargs.get("auto_delete")))
        elif not self._has_queue(queue):
            raise ChannelError(
                f"NOT_FOUND - no queue {queue!r} in vhost {self.connection.client.virtual_host or '/'!r}",
                (50, 10), "Channel.queue_declare", "404",
            )  # fmt: skip
        return virtual.base.queue_declare_ok_t(queue, self._size(queue), 0)

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        if queue in self._session.fanout or self._session.routing.knows(queue):
            return True
        keys = self._session.names.queue(queue)
        found = run(layouts([keys]), self._session.connector)
        return found[keys] is not None

    def _size(self, queue: str) -> int:
        if queue in self._session.fanout:
            return 0
        view = self._run(commands.inspect(self._session.names.queue(queue)))
        return int(view.waiting + view.retry)

    def _purge(self, queue: str) -> int:
        self._check_open()
        keys = self._session.names.queue(queue)
        return int(run(remove_all(keys, ("waiting", "delayed", "retry"), "purged"), self._session.connector))

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any) -> int:
        """Delete a queue with all in it, and its bindings. `if_unused` knows the consumers of this connection."""
        self._check_open()
        with self._doing(f"delete queue {queue}"):
            return self._queue_delete(queue, if_unused, if_empty)

    def _queue_delete(self, queue: str, if_unused: bool, if_empty: bool) -> int:
        session = self._session
        if if_unused and session.consumer.serves(queue):
            return 0
        count = 0
        if queue not in session.fanout:
            session.keeper.flush()
            count = run(delete_queue(session.names.queue(queue), if_empty=if_empty), session.connector)
            if count < 0:
                return 0
            session.routing.unbind_all(queue, self.state.exchanges)
        for exchange, routing_key, _ in list(self.state.queue_bindings(queue)):
            self._drop_from_table(exchange, queue, routing_key)
        self.state.queue_bindings_delete(queue)
        session.fanout.forget(queue)
        session.routing.forget_queue(queue)
        session.consumer.forget(queue)
        session.keeper.forget(session.names.queue(queue))
        if self._qos is not None:
            self._qos.forget(queue)
        session.names.forget(queue)
        return int(count)

    # Exchanges and bindings

    def exchange_declare(self, exchange: str | None = None, type: str = "direct", durable: bool = False, **kwargs: Any) -> None:
        """Declare an exchange, for other connections too."""
        self._check_open()
        kind = type or "direct"
        exchange = exchange or f"amq.{kind}"
        with self._doing(f"declare exchange {exchange}"):
            if kwargs.get("passive") and exchange not in self.state.exchanges:
                self._learn(exchange)
            # Others first: when they cannot be told, it is not declared.
            if exchange not in self.state.exchanges and not kwargs.get("passive"):
                self._session.routing.declare(exchange, kind, durable=durable)
        super().exchange_declare(exchange, kind, durable, **kwargs)

    def exchange_delete(self, exchange: str, if_unused: bool = False, nowait: bool = False) -> None:
        """Delete an exchange and its bindings; queues stay."""
        self._check_open()
        with self._doing(f"delete exchange {exchange}"):
            self._session.routing.delete(exchange)
        self.state.exchanges.pop(exchange, None)
        for key in [key for key in self.state.bindings if key.exchange == exchange]:
            self.state.binding_delete(*key)

    def queue_bind(self, queue: str, exchange: str | None = None, routing_key: str = "", **kwargs: Any) -> None:
        """Bind a queue. One that is bound to a fanout exchange gets what is published from now on."""
        self._check_open()
        exchange = exchange or "amq.direct"
        with self._doing(f"bind queue {queue} to exchange {exchange}"):
            self._bind_to(queue, exchange, routing_key, **kwargs)

    def _bind_to(self, queue: str, exchange: str, routing_key: str, **kwargs: Any) -> None:
        if exchange not in self.state.exchanges:
            self._learn(exchange)
            self.state.exchanges.setdefault(exchange, _exchange("direct"))
        if self.state.has_binding(queue, exchange, routing_key):
            return
        try:
            super().queue_bind(queue, exchange, routing_key, **kwargs)
        except BrokerError:
            # Not bound: the next try is to tell Redis.
            self.state.binding_delete(queue, exchange, routing_key)
            self._drop_from_table(exchange, queue, routing_key)
            raise

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str | None, queue: str) -> None:
        if self.typeof(exchange).type == "fanout":
            self._session.fanout.bind(queue, exchange)
        else:
            self._run_many(self._session.routing.say_rules(queue))
            self._session.routing.bind(exchange, queue, routing_key)

    def queue_unbind(self, queue: str, exchange: str | None = None, routing_key: str = "", **kwargs: Any) -> None:
        """Take a binding out."""
        self._check_open()
        exchange = exchange or "amq.direct"
        self.state.binding_delete(queue, exchange, routing_key)
        self._drop_from_table(exchange, queue, routing_key)
        if queue in self._session.fanout:
            self._session.fanout.unbind(queue, exchange)
        else:
            with self._doing(f"unbind queue {queue} from exchange {exchange}"):
                self._session.routing.unbind(exchange, queue, routing_key)

    def _drop_from_table(self, exchange: str, queue: str, routing_key: str) -> None:
        table = self.state.exchanges.get(exchange, {}).get("table", [])
        table[:] = [row for row in table if (row[0], row[2]) != (routing_key, queue)]

    def _learn(self, exchange: str) -> list[Any]:
        """Read what others said of an exchange: what it is, if it is not known here, and its table."""
        kind, table = self._session.routing.read(exchange)
        if kind in self.exchange_types and exchange not in self.state.exchanges:
            self.state.exchanges[exchange] = _exchange(kind)
        return list(table)

    def get_table(self, exchange: str) -> list[Any]:
        """The bindings of an exchange: what Redis has, and what was made here and got lost there."""
        self._check_open()
        table = self._learn(exchange)
        found = {(routing_key, queue) for routing_key, _, queue in table}
        for routing_key, pattern, queue in self.state.exchanges.get(exchange, {}).get("table", ()):
            if (routing_key, queue) not in found:
                self._session.routing.bind(exchange, queue, routing_key)
                table.append((routing_key, pattern, queue))
        return table

    def _lookup(self, exchange: str, routing_key: str, default: str | None = None) -> Iterable[str]:
        default = default or self.deadletter_queue
        if not exchange:
            queue = routing_key or default
            if not queue:
                raise ChannelError("a message to the default exchange wants a routing key: the name of its queue")
            return [queue]
        table = self.get_table(exchange)
        found = self.typeof(exchange).lookup(table, exchange, routing_key, default)
        if not found and default is not None:
            warnings.warn(UndeliverableWarning(UNDELIVERABLE_FMT.format(exchange=exchange, routing_key=routing_key)), stacklevel=2)
            return [default]
        return set(found)

    # Publishing

    def _next_delivery_tag(self) -> str:
        # A publication has none: each of its deliveries gets one.
        return ""

    def basic_publish(self, message: dict[str, Any], exchange: str, routing_key: str, **kwargs: Any) -> None:
        """Publish: one write, whatever the number of queues."""
        try:
            self._run_many(self.publication(message, exchange, routing_key))
        except BrokerError as error:
            raise _named(error, to_send(message.get("headers"), exchange, routing_key)) from error.__cause__

    def publication(self, message: dict[str, Any], exchange: str, routing_key: str) -> list[Command[Any]]:
        """The commands that publish a message."""
        self._inplace_augment_message(message, exchange, routing_key)
        body = encode(message)
        if exchange:
            if exchange not in self.state.exchanges:
                self._learn(exchange)
            if self.typeof(exchange).type == "fanout":
                return [self._session.fanout.publish(exchange, body)]
        several: list[Command[Any]] = []
        for queue in self._lookup(exchange, routing_key):
            several += self._session.routing.say_rules(queue)
            several += self._session.routing.say_passing(exchange, queue) if exchange else ()
            several.append(commands.enqueue(self._session.names.queue(queue), [to_enqueue(message, body, self.options)]))
        return several

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        enqueue = to_enqueue(message, encode(message), self.options)
        self._run_many([*self._session.routing.say_rules(queue), commands.enqueue(self._session.names.queue(queue), [enqueue])])

    def _put_fanout(self, exchange: str, message: dict[str, Any], routing_key: str, **kwargs: Any) -> None:
        self._run(self._session.fanout.publish(exchange, encode(message)))

    @property
    def supports_batch_publish(self) -> bool:
        """Whether `Producer.batch()` gathers; what the stock transport cannot gather safely it does not, nor does this."""
        return bool(self.connection.supports_batch_publish)

    def create_publish_batch(self, max_size: int) -> PublishBatch:
        """Gather publications."""
        return PublishBatch(self, self._session.connector, max_size)

    # Consuming

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **kwargs: Any) -> None:
        """Consume from a queue."""
        self._check_open()
        self._tag_to_queue[consumer_tag] = queue
        self._active_queues.append(queue)
        self._consumers.add(consumer_tag)
        self._callbacks[consumer_tag] = (callback, bool(no_ack))
        self._session.routing.consume(queue)
        if queue not in self._session.fanout:
            with self._doing(f"consume from queue {queue}"):
                self._run_many(self._session.routing.say_rules(queue))
        self._session.keeper.refresh_now()
        self._session.consumer.subscribe(Subscription(self, queue, consumer_tag))

    def basic_cancel(self, consumer_tag: str) -> None:
        """End a consumer."""
        if consumer_tag not in self._consumers:
            return
        self._consumers.discard(consumer_tag)
        queue: str | None = self._tag_to_queue.pop(consumer_tag, None)
        if queue in self._active_queues:
            self._active_queues.remove(queue)
        self._callbacks.pop(consumer_tag, None)
        if queue is None:
            return
        self._session.consumer.cancel(Subscription(self, queue, consumer_tag))
        if not self._session.consumer.serves(queue):
            self._session.routing.cancel(queue)

    def hand_out(self, subscription: Subscription, held: Held) -> bool:
        """Give a message to its consumer. False: it was not one, or there is no such consumer."""
        found = self._callbacks.get(subscription.tag)
        if found is None:
            self._session.keeper.end(held, "release")
            return False
        callback, no_ack = found
        message = self._received(held, no_ack)
        if message is None:
            return False
        callback(message)
        return True

    def hand_out_broadcast(self, subscription: Subscription, body: bytes) -> bool:
        """Give a fanout message to its consumer. There is nothing to acknowledge. False: as for `hand_out`."""
        found = self._callbacks.get(subscription.tag)
        message = self._broadcast(body)
        if found is None or message is None:
            return False
        found[0](message)
        return True

    def _received(self, held: Held, no_ack: bool) -> Any:
        """The message of a lease, as kombu has it; None when it cannot be read: it is a dead letter then."""
        tag = held.tag
        try:
            check_id(held.delivery)
            raw = decode(held.delivery.body)
            mark(raw, held.delivery, tag)
            message = self.Message(raw, channel=self)
        except _UNREADABLE as error:
            _log.error("Message %s of queue %s cannot be read: %s", escape(held.delivery.id), held.queue, error)
            self._session.keeper.end(held, "undecodable")
            return None
        if no_ack:
            self._session.keeper.end(held, "ack")
        else:
            self.qos.hold(held)
            self.qos.append(message, tag)
        return message

    def _broadcast(self, body: bytes) -> Any:
        try:
            raw = decode(body)
            raw["properties"]["delivery_tag"] = uuid()
            return self.Message(raw, channel=self)
        except _UNREADABLE as error:
            _log.error("A fanout message cannot be read, passed over: %s", error)
            return None

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Take one message, if there is one."""
        with self._doing(f"get a message of queue {queue}"):
            return self._take(queue, no_ack)

    def _take(self, queue: str, no_ack: bool) -> Any:
        if queue in self._session.fanout:
            body = self._session.fanout.get(queue)
            return None if body is None else self._broadcast(body)
        self._run_many(self._session.routing.say_rules(queue))
        while held := self._session.consumer.get(queue):
            message = self._received(held, no_ack)
            if no_ack:
                self._session.keeper.flush()
            if message is not None:
                return message
        return None

    def basic_recover(self, requeue: bool = False) -> Any:
        """Give back all that was not settled."""
        if not requeue:
            raise NotImplementedError("basic_recover(requeue=False)")
        return self.qos.restore_unacked()

    def drain_events(self, timeout: float | None = None, callback: Any = None) -> Any:
        """Hand out one message of the connection."""
        return self.connection.drain_events(self.connection, timeout=timeout)

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Acknowledge; works after the channel was closed too."""
        if self._qos is not None:
            self._qos.ack(delivery_tag)


def _named(error: BrokerError, what: str) -> BrokerError:
    return type(error)(f"could not {what}: {error.why}") if error.why else error


def _exchange(kind: str) -> dict[str, Any]:
    return {"type": kind, "durable": True, "auto_delete": False, "arguments": {}, "table": []}
