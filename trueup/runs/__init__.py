"""The life of a run: its record, streams, checkpoints and resume point, progress, and stopping politely."""

from .progress import duration, quiet, track
from .run import Run, Status, diff, runs
from .signals import graceful, stop_requested

__all__ = ["Run", "Status", "diff", "duration", "graceful", "quiet", "runs", "stop_requested", "track"]
