"""Publish an object exactly once: exclusive creation, and after any error reading it back.

In: a place, and a body that tells its attempt from all others. Out: whether this attempt's object is there, or `Undecided`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ecgfounder.errors import StorageError
from ecgfounder.storage import Denied, Location, Missing

_TRIES = 5
_FIRST_PAUSE = 0.1
"""Seconds before the second try; each later pause is twice as long."""


class Undecided(StorageError):
    """It is not known whether an object was published; it may still appear. Nothing may be removed or done again before."""


class Superseded(StorageError):
    """Another process has taken over; this one must not write any more."""


class Lost(Superseded):
    """Another attempt at the same group was published first; what only this attempt refers to can be removed."""


def publish(place: Location, body: bytes, *, is_ours: Callable[[bytes], bool] | None = None) -> bool:
    """Create an object; True if it is this attempt's, False if another attempt's was there first.

    A store may do the work and lose the reply, and its client then tries again and meets its own object. So the object is read
    after every error: ours, another's, or absent, which is tried again.

    Parameters
    ----------
    is_ours : callable, optional
        Whether a content was written by this attempt; None compares it with the body.

    Raises
    ------
    Undecided
        If the object cannot be read back, or stays absent.
    Denied
        If writing is not permitted.
    """
    pause = _FIRST_PAUSE
    for _ in range(_TRIES):
        try:
            place.claim(body)
            return True
        except StorageError as error:
            reason = error
        try:
            found = place.read()
        except Missing:
            if isinstance(reason, Denied):
                raise reason from None
            time.sleep(pause)
            pause *= 2
            continue
        except StorageError as error:
            raise Undecided(f"{place} cannot be read back: {error}") from error
        return found == body if is_ours is None else is_ours(found)
    raise Undecided(f"{place} cannot be written: {reason}")
