"""Storage: stores and locations, reading and listing files, replacing a file atomically, paths as text."""

from ecgfounder.storage.given import given
from ecgfounder.storage.location import HERE, Location, is_url, locate, path_here, working_folder
from ecgfounder.storage.store import Conflict, Denied, Missing, Status, Store, Unavailable

__all__ = [
    "HERE",
    "Conflict",
    "Denied",
    "Location",
    "Missing",
    "Status",
    "Store",
    "Unavailable",
    "given",
    "is_url",
    "locate",
    "path_here",
    "working_folder",
]
