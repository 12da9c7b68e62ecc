"""`MetricsStore`: what nodes measure, in memory: the last hour, live samples for those who watch.

The rules it guards: a node that nobody watches sends each 10 s, a watched one each second; what an
agent sends is bounded in size, rate and time before it is kept.

    await metrics.handle_stream(node_id, channel)      # in the tunnel's handler
    with metrics.feed() as feed:                       # in a browser's socket
        feed.watch(node_ids)
        async for sample in feed: ...
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from hub.buckets import Buckets
from hub.metrics.feed import Feed, LiveSample
from hub.metrics.history import History, NodeHistory
from hub.metrics.series import NodeSchema, RefusedMetrics, checked_schema, outside
from hub.metrics.spark import NO_SPARK, Spark, SparkRing
from protocol.aio import Channel, ResetCode
from protocol.record_types import MetricsFromAgent, Rate, Sample, Schema

logger = logging.getLogger(__name__)

WATCHED_S = 1
RESTING_S = 10
LATE_LIMIT_S = 300.0
EARLY_LIMIT_S = 5.0
"""A sample further off than these is given the hub's time: the node's clock is wrong."""
CLOSEST_S = 0.4
"""Samples that follow each other sooner are dropped."""
LEVELS_KEEP_S = 35.0
RATES_LIMIT_BYTES = 1024
"""A node that leaves more unread has its stream reset."""


@dataclass(frozen=True, slots=True)
class Levels:
    """How busy a node is now, in percent; None when that is not known."""

    cpu: float | None = None
    memory: float | None = None


@dataclass(slots=True)
class _Node:
    """One node's metrics and who follows them."""

    schema: NodeSchema | None = None
    history: NodeHistory = field(default_factory=NodeHistory)
    spark: SparkRing = field(default_factory=SparkRing)
    last_at: float = 0.0
    levels: Levels = Levels()
    feeds: set[Feed] = field(default_factory=set)
    channel: Channel[Rate, MetricsFromAgent] | None = None
    """The newest stream."""
    told_s: int = RESTING_S
    """How often it is to send, as the node knows."""

    @property
    def interval_s(self) -> int:
        return WATCHED_S if self.feeds else RESTING_S


@dataclass(slots=True)
class MetricsStore:
    """The metrics of all nodes."""

    clock: Callable[[], float] = time.time
    _nodes: dict[str, _Node] = field(default_factory=dict)
    _schemas: WeakValueDictionary[bytes, NodeSchema] = field(default_factory=WeakValueDictionary)
    """Those in use, by what was sent: nodes that measure the same share one of 25 KiB."""
    _schema_rate: Buckets = field(default_factory=lambda: Buckets(per_s=1.0, burst=5))

    # --- asking ---------------------------------------------------------------------------------

    def interval_for(self, node_id: str) -> int:
        """Return how often a node is to send, in seconds: 1 while it is watched, else 10."""
        node = self._nodes.get(node_id)
        return RESTING_S if node is None else node.interval_s

    def history(self, node_id: str, since_s: float) -> History:
        """Return the last `since_s` seconds of a node, an hour at most."""
        node = self._nodes.get(node_id)
        return History([], [], []) if node is None else node.history.read(self.clock() - since_s)

    def spark(self, node_id: str) -> Spark:
        """Return ten minutes of processor and memory in percent."""
        node = self._nodes.get(node_id)
        return NO_SPARK if node is None else node.spark.read(self.clock())

    def levels(self, node_id: str) -> Levels:
        """Return the newest processor and memory percent, unless they are older than 35 s."""
        node = self._nodes.get(node_id)
        if node is None or node.last_at < self.clock() - LEVELS_KEEP_S:
            return Levels()
        return node.levels

    @contextmanager
    def feed(self) -> Iterator[Feed]:
        """Follow nodes live; leaving the block unwatches them."""
        feed = Feed(self._note_watch)
        try:
            yield feed
        finally:
            feed.watch(())

    def forget(self, node_id: str) -> None:
        """Drop a node that was removed."""
        self._nodes.pop(node_id, None)

    def _note_watch(self, feed: Feed, came: Set[str], went: Set[str]) -> None:
        for node_id in came:
            node = self._nodes.setdefault(node_id, _Node())
            node.feeds.add(feed)
            self._follow_watch(node)
        for node_id in went:
            if left := self._nodes.get(node_id):
                left.feeds.discard(feed)
                self._follow_watch(left)

    def _follow_watch(self, node: _Node) -> None:
        node.history.watch(bool(node.feeds))
        self._pace(node)

    def _pace(self, node: _Node) -> None:
        """Tell the node how often to send, if that is news."""
        if node.channel is None or node.told_s == node.interval_s:
            return
        node.told_s = node.interval_s
        if node.channel.push(Rate(interval_s=node.told_s)) > RATES_LIMIT_BYTES:
            node.channel.reset(ResetCode.OVERLOADED, "it does not read how often it is to send")

    # --- a node's stream --------------------------------------------------------------------------

    async def handle_stream(self, node_id: str, channel: Channel[Rate, MetricsFromAgent]) -> None:
        """Take a node's samples until its stream ends; a newer stream of the node replaces it.

        Raises:
            ProtocolError: the stream was reset or its tunnel closed.
        """
        node = self._nodes.setdefault(node_id, _Node())
        if node.channel is not None:
            node.channel.reset(ResetCode.CANCELLED, "a newer metrics stream took over")
        node.channel, node.schema, node.told_s = channel, None, RESTING_S
        self._pace(node)
        try:
            await self._receive(node_id, node, channel)
        except RefusedMetrics as refused:
            logger.warning("node %s: metrics refused: %s", node_id, refused.reason)
            channel.reset(ResetCode.PROTOCOL, refused.reason)
        finally:
            if node.channel is channel:
                node.channel = None

    async def _receive(
        self, node_id: str, node: _Node, channel: Channel[Rate, MetricsFromAgent]
    ) -> None:
        while (record := await channel.receive()) is not None:
            if node.channel is not channel:
                return
            match record:
                case Schema():
                    if self._schema_rate.take(node_id, time.monotonic()):
                        raise RefusedMetrics("the schema changes more than once a second")
                    node.schema = self._shared(record)
                case Sample():
                    if node.schema is None:
                        raise RefusedMetrics("a sample came before a schema")
                    self._take(node_id, node, node.schema, record)

    def _shared(self, record: Schema) -> NodeSchema:
        schema = self._schemas.get(record.deflated)
        if schema is None:
            schema = self._schemas[record.deflated] = checked_schema(record)
        return schema

    def _take(self, node_id: str, node: _Node, schema: NodeSchema, sample: Sample) -> None:
        row = schema.row(sample)
        at = self._time_of(node, sample)
        if at is None:
            return
        node.last_at = at
        node.history.append(schema, at, row)
        cpu, memory = schema.percents(row)
        node.spark.put(at, cpu, memory)
        node.levels = Levels(*outside((cpu, memory)))
        if node.feeds:
            live = LiveSample(node_id, schema, at, outside(row))
            for feed in node.feeds:
                feed.offer(live)

    def _time_of(self, node: _Node, sample: Sample) -> float | None:
        """Return the time to keep a sample at, None when it follows too soon."""
        now, at = self.clock(), sample.at_ms / 1000
        if not now - LATE_LIMIT_S <= at <= now + EARLY_LIMIT_S or at <= node.last_at:
            at = now
        return at if at - node.last_at >= CLOSEST_S else None
