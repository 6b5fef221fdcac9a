"""Look at a run in a browser: a map of its recordings, their ECGs, what failed.

In: an opened run. Out: an `Atlas`, which answers questions, and a `Server` on this machine for one browser.
"""

from ecgfounder.viewer.atlas import Atlas, open_atlas
from ecgfounder.viewer.server import Server
from ecgfounder.viewer.viewer import Viewer

__all__ = ["Atlas", "Server", "Viewer", "open_atlas"]
