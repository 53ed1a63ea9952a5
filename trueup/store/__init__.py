"""The workspace: one database and one folder of artifacts. All SQL and all paths of trueup live here."""

from .artifacts import Artifact, plain_json
from .clock import stamp, utc_now
from .files import (
    Lock,
    atomic_write,
    describe_files,
    differing_files,
    human_size,
    is_held,
    read_jsonl,
    remove,
    saying_disk_full,
    sync_folder,
    sync_tree,
    write_jsonl,
)
from .lineage import JUDGED, Lineage, Node
from .run_rows import RunRow
from .unused import Leftover
from .workspace import Workspace

__all__ = [
    "JUDGED",
    "Artifact",
    "Leftover",
    "Lineage",
    "Lock",
    "Node",
    "RunRow",
    "Workspace",
    "atomic_write",
    "describe_files",
    "differing_files",
    "human_size",
    "is_held",
    "plain_json",
    "read_jsonl",
    "remove",
    "saying_disk_full",
    "stamp",
    "sync_folder",
    "sync_tree",
    "utc_now",
    "write_jsonl",
]
