"""What nodes measure: kept for an hour in memory, shown live, told to agents how often."""

from hub.metrics.feed import Feed, LiveSample
from hub.metrics.history import History
from hub.metrics.series import NodeSchema, SeriesInfo
from hub.metrics.spark import Spark
from hub.metrics.store import Levels, MetricsStore

__all__ = [
    "Feed", "History", "Levels", "LiveSample", "MetricsStore", "NodeSchema", "SeriesInfo", "Spark",
]  # fmt: skip
