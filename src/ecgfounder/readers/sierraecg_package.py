"""Philips Sierra XML through the `sierraecg` package: the cross-check of the project's own decoder.

In: a `Source` whose file the package reads by path. Out: a `Recording` in mV. The package ignores the resolution, the
sample count and the lead labels: 5 uV per count and the package's own lead order are what it is taken to mean.
"""

from __future__ import annotations

import io
import warnings

import numpy as np

from ecgfounder.ecg.leads import canonical_leads
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError
from ecgfounder.readers.source import Source, open_file

FORMAT = "philips_sierra"

RESOLUTION_UV = 5.0
MAX_FILE_BYTES = 2 << 20  # real files have a tenth of it; the package has no limit of its own on what it unpacks


def matches(source: Source) -> bool:
    """Every file: this reader is asked for by name, and whatever the package cannot read is an error."""
    return True


def read(source: Source) -> Recording:
    """Read with `sierraecg.read_file`, as the first version of this program did.

    Returns
    -------
    Recording
        Samples float32 [n_leads, n_samples] in mV, counts x 5 uV whatever resolution the file gives; the rate of
        acquisition.

    Raises
    ------
    ReadError
        For whatever the package raises, for gzip files, which it cannot open, and for files of more than 2 MiB.
    """
    from sierraecg import read_file  # slow to import, and seldom wanted

    with open_file(source.location) as file:
        size = file.seek(0, 2)
    if source.is_gzip:
        raise ReadError("gzip data, which the sierraecg package cannot read; unpack it, or use reader='auto'")
    if size > MAX_FILE_BYTES:
        raise ReadError(f"file of {size:,} bytes; at most {MAX_FILE_BYTES:,} are given to the sierraecg package")
    try:
        with warnings.catch_warnings():
            # Its 16-bit arithmetic overflows with a warning for each sample.
            warnings.simplefilter("ignore", RuntimeWarning)
            leads = read_file(io.BytesIO(source.content)).leads  # what `minidom` parses, path or file
        samples = np.stack([lead.samples for lead in leads]).astype(np.float32)
        rate = float(leads[0].sampling_freq)
        names = canonical_leads(str(lead.label) for lead in leads)
    except MemoryError:
        raise
    except Exception as error:  # parser, Base64, arithmetic and index errors leak from it as they are
        # Its message may quote the file.
        raise ReadError(f"the sierraecg package cannot read it ({type(error).__name__})") from error
    samples *= np.float32(RESOLUTION_UV)
    samples /= 1000
    return Recording(
        samples=samples,
        sampling_rate=rate,
        leads=names,
        source_format=FORMAT,
        meta={"resolution_uv": RESOLUTION_UV},
    )
