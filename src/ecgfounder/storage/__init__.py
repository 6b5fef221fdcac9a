"""Storage: stores and locations, reading and listing files, replacing a file atomically, paths as text."""

from ecgfounder.storage.given import given
from ecgfounder.storage.hub import held_at_commit, release_commits
from ecgfounder.storage.location import (
    HERE,
    Location,
    bucket_of,
    folder_text,
    is_url,
    locate,
    locate_folder,
    locate_output,
    names_archive,
    output_place,
    path_here,
    require_folder,
    working_folder,
)
from ecgfounder.storage.options import NO_OPTIONS, StorageOptions, storage_options
from ecgfounder.storage.store import Conflict, Denied, Missing, Replaced, Status, Store, Unavailable, Unreadable

__all__ = [
    "HERE",
    "NO_OPTIONS",
    "Conflict",
    "Denied",
    "Location",
    "Missing",
    "Replaced",
    "Status",
    "StorageOptions",
    "Store",
    "Unavailable",
    "Unreadable",
    "bucket_of",
    "folder_text",
    "given",
    "held_at_commit",
    "is_url",
    "locate",
    "locate_folder",
    "locate_output",
    "names_archive",
    "output_place",
    "path_here",
    "release_commits",
    "require_folder",
    "storage_options",
    "working_folder",
]
