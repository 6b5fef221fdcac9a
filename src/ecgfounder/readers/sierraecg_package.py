"""Philips Sierra XML by the `sierraecg` package, a cross-check of the decoder in `readers.philips`.

In: a `Source`. Out: a `Recording` in millivolts. The package ignores the file's resolution, sample count and lead labels; 5 uV
per count and the package's order of leads are assumed.
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
MAX_FILE_BYTES = 2 << 20  # real files have a tenth; the package has no limit on unpacked data


def matches(source: Source) -> bool:
    """True for every file: this reader is chosen by name, and a file that the package cannot read is an error."""
    return True


def read(source: Source) -> Recording:
    """Read with `sierraecg.read_file`.

    Returns
    -------
    Recording
        Samples float32 [n_leads, n_samples] in millivolts, counts x 5 uV for any resolution in the file; the sampling rate of the
        acquisition.

    Raises
    ------
    ReadError
        If the package raises an exception, for gzip files, which it cannot read, and for files of more than 2 MiB.
    """
    from sierraecg import read_file  # slow to import, and rarely needed

    with open_file(source.location) as file:
        size = file.seek(0, 2)
    if source.is_gzip:
        raise ReadError("gzip data, which the sierraecg package cannot read; unpack it, or use reader='auto'")
    if size > MAX_FILE_BYTES:
        raise ReadError(f"file of {size:,} bytes; the sierraecg package is used for at most {MAX_FILE_BYTES:,}")
    try:
        with warnings.catch_warnings():
            # Its 16-bit arithmetic overflows, with a warning for each sample.
            warnings.simplefilter("ignore", RuntimeWarning)
            leads = read_file(io.BytesIO(source.content)).leads  # a path or a file
        samples = np.stack([lead.samples for lead in leads]).astype(np.float32)
        rate = float(leads[0].sampling_freq)
        names = canonical_leads(str(lead.label) for lead in leads)
    except MemoryError:
        raise
    except Exception as error:  # it raises errors of the parser, of Base64, of arithmetic and of indices
        # The message may quote the file.
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
