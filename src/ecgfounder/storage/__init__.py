"""Storage: stores and locations, reading and listing files, replacing a file atomically, paths as text."""

from ecgfounder.storage.given import given
from ecgfounder.storage.location import (
    HERE,
    Location,
    folder_text,
    is_url,
    locate,
    output_place,
    path_here,
    require_folder,
    working_folder,
)
from ecgfounder.storage.options import NO_OPTIONS, StorageOptions, storage_options
from ecgfounder.storage.store import Conflict, Denied, Missing, Status, Store, Unavailable

__all__ = [
    "HERE",
    "NO_OPTIONS",
    "Conflict",
    "Denied",
    "Location",
    "Missing",
    "Status",
    "StorageOptions",
    "Store",
    "Unavailable",
    "folder_text",
    "given",
    "is_url",
    "locate",
    "output_place",
    "path_here",
    "require_folder",
    "storage_options",
    "working_folder",
]
