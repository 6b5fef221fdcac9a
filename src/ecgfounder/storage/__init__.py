"""Where bytes lie: paths as text, one way to read and list, one way to replace a file or an object."""

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
    "is_url",
    "locate",
    "path_here",
    "working_folder",
]
