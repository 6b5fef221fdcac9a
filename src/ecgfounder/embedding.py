"""Embed a cohort from Python: the run of `ecgfounder embed`, with the same settings and the same run record.

In: a cohort, a folder for its embeddings, settings. Out: the folder, a summary, and the run opened for reading.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from ecgfounder.cohort.in_memory import Table, file_of
from ecgfounder.cohort.sources import default_data_dir
from ecgfounder.drivers.actors import ActorSettings
from ecgfounder.drivers.interruption import Interruption
from ecgfounder.ecg.leads import canonical_leads
from ecgfounder.errors import StorageError
from ecgfounder.escaping import counted, one_line
from ecgfounder.preprocess.preparation import Preparation, chosen_preparation
from ecgfounder.preprocess.recipes import Recipe
from ecgfounder.readers.source import Hints
from ecgfounder.results.run import EmbeddingRun, open_run
from ecgfounder.run.choice import make_run
from ecgfounder.run.pace import MINUTE, Minutes
from ecgfounder.run.settings import CALLED, Carrier, Settings, shard_and_group
from ecgfounder.run.summary import Summary
from ecgfounder.storage import folder_text, output_place, working_folder
from ecgfounder.storage import storage_options as make_options

log = logging.getLogger("ecgfounder")

Progress = Callable[[int, int, int], None]
"""Called with the number of records done and failed in this attempt, and the number that it has to do."""


@dataclass(frozen=True)
class CohortRun:
    """The result of `embed_cohort`.

    Attributes
    ----------
    summary : Summary
        The outcome of this attempt; `summary.tally` counts all records of the cohort.
    run : EmbeddingRun
        The run's embeddings, read on use.
    """

    summary: Summary
    run: EmbeddingRun


def embed_cohort(
    dataset: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | Table,
    output_dir: str | os.PathLike[str],
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    mode: str = "12lead",
    data_dir: str | os.PathLike[str] | None = None,
    split: str = "train",
    path_column: str = "ecg_paths",
    id_column: str | None = None,
    keep_columns: Sequence[str] = (),
    recipe: str | Recipe | None = None,
    window: float | Literal["whole"] | None = None,
    stride: float | None = None,
    remainder: str | None = None,
    lead: str | None = None,
    missing_leads: str | None = None,
    resampling: str | None = None,
    trim_zero_edges: bool | None = None,
    preparation: Preparation | None = None,
    reader: str = "auto",
    sampling_rate: float | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
    engine: str = "auto",
    precision: str = "float32",
    device: str | None = None,
    compiled: bool = False,
    pooling: str = "none",
    predictions: bool | str | os.PathLike[str] = False,
    statements: bool = False,
    heart_rate: bool = False,
    dtype: str = "float32",
    format: str = "json",
    layout: str = "flat",
    shard_size: int | None = None,
    batch_size: int | None = None,
    num_workers: int = 4,
    shard: tuple[int, int] = (1, 1),
    sample: int | None = None,
    overwrite: bool = False,
    retry_failed: bool = False,
    check_hashes: bool = False,
    read_timeout: float = 120.0,
    read_memory: float | None = None,
    storage_options: Mapping[str, object] | None = None,
    driver: str | Carrier = "local",
    ray_address: str | None = None,
    group_size: int | None = None,
    gpus_per_actor: float | None = None,
    cpus_per_actor: int | None = None,
    actors: tuple[int, int | None] = (1, None),
    progress: bool | Progress = False,
) -> CohortRun:
    """Embed every ECG of a cohort, as `ecgfounder embed` does, or resume such a run.

    Parameters
    ----------
    dataset : str, os.PathLike, list of paths, or table
        Hugging Face dataset (`save_to_disk` folder or Hub name), table (.csv, .tsv, .csv.gz, .json, .jsonl, .ndjson,
        .parquet, .feather), list of paths (.txt, or PhysioNet's RECORDS), folder of ECGs, pattern ("data/**/*.xml"), or one
        ECG; a path, or a URL (s3://, gs://, az://, hf://datasets/). In memory: a list of paths, or a table of pandas, Polars
        or PyArrow, of which the columns in use are written to the cache.
    output_dir : str or os.PathLike
        Folder of the embeddings, a path or a URL (s3://, gs://, az://). If it holds a run with the same settings, that run is
        resumed; finished records are not done again.
    checkpoint : str or os.PathLike, optional
        A file, a folder that holds the mode's published file, OWNER/NAME on the Hugging Face Hub, or None for the published
        repository there.
    mode : str, default: "12lead"
        "12lead" or "1lead", the network.
    data_dir : str or os.PathLike, optional
        Folder that relative paths are relative to; None for the working directory or, if the dataset is a folder of
        ECGs, that folder.
    split : str, default: "train"
        Split of a dataset that has several.
    path_column : str, default: "ecg_paths"
        Column of the dataset with the paths.
    id_column : str, optional
        Column with identifiers, which replace paths in the outputs and their names.
    keep_columns : sequence of str
        Columns to copy into the manifest.
    recipe : str or Recipe, optional
        The processing of a recording before the network: "zscore", "filtered", "paper", or your own `Recipe`.
    window, stride : float, optional
        Seconds; see `Preparation`. `window="whole"` disables the windows of the recipe.
    remainder, lead, missing_leads, resampling : str, optional
        See `Preparation`; None for its defaults.
    trim_zero_edges : bool, optional
        See `Preparation`.
    preparation : Preparation, optional
        A `Preparation` instead of the parameters `recipe` to `trim_zero_edges`.
    reader : {"auto", "sierraecg", "mortara_eli", "mfer", "kardia_atc", "kardia_json"}
        "auto" (format detected by content), "sierraecg" (Philips files, read by that package), "mortara_eli", "mfer" or
        "kardia_atc", "kardia_json" (formats that no file of a device has verified).
    sampling_rate : float, optional
        In Hz, for files that do not state it.
    leads : sequence of str, optional
        Names of the leads in order, for files that do not state them.
    unit : str, optional
        Unit of the samples ("mV", "uV", "V" ...), for files that do not state it.
    engine, precision : str
        Implementation of the network, and its arithmetic; see `load`.
    device : str, optional
        "cpu", "cuda", "cuda:1" ...; None takes the first GPU if there is one.
    compiled : bool, default: False
        Whether to compile the network with `torch.compile`; see `load`.
    pooling : {"none", "mean", "both"}
        The feature map [T, 1024], its mean over T [1024], or both (in Parquet).
    predictions : bool or str or os.PathLike, default: False
        Whether to write the head's probabilities to a separate table; or the probe.safetensors of `ecgfounder probe`, whose
        probabilities are written instead.
    statements : bool, default: False
        Whether to write the devices' diagnostic statements to a separate table.
    heart_rate : bool, default: False
        Whether to measure the heart rate of each recording, for the manifest's column `heart_rate`.
    dtype : {"float32", "float16"}
        Data type of the embeddings that are written.
    format : {"json", "parquet"}
        One JSON file per recording, or Parquet shards.
    layout : {"flat", "tree"}
        JSON files in one folder, or in the folders of the recordings.
    shard_size : int, optional
        Recordings per Parquet shard; None for `group_size`, or 1000.
    batch_size : int, optional
        Recordings in a batch; None for 8 on a CPU and 128 on a GPU.
    num_workers : int, default: 4
        Maximum number of reading processes. With 0, files are read in this process.
    shard : tuple of (int, int), optional
        (i, n): this call does the i-th of n shards of the cohort.
    sample : int, optional
        Do only so many recordings, spread over the cohort; a larger sample includes a smaller one. The same call without it does
        the others.
    overwrite : bool, default: False
        Remove the outputs of an earlier run, and begin again.
    retry_failed : bool, default: False
        Try all failed recordings again. Without it, those are tried whose files did not exist and exist now.
    check_hashes : bool, default: False
        Compare the files of finished recordings by content, not only by size and time.
    read_timeout : float, default: 120.0
        Time limit for reading one file, in seconds; time in which an object store sends it does not count.
    read_memory : float, optional
        Memory that the reading of large files may take on this machine, in GiB. A file that needs more is read alone. None
        for a quarter of the memory that the job may use.
    storage_options : mapping, optional
        Options of object stores that are not in the environment, by obstore's names: credentials, "region", "endpoint",
        "skip_signature" (public buckets), "request_payer" and others. They are neither written nor shown.
    driver : {"local", "ray"} or callable, default: "local"
        "ray" lets workers on a Ray cluster do the recordings. A function is called with a `Work` and an iterator of `Group`s;
        it calls `ecgfounder.distributed.do_group(work, group)` for each, on any machines that share `output_dir`, and gives the
        outcomes as they come.
    ray_address : str, optional
        "auto" (this machine's cluster), "HOST:PORT", or "local", an own cluster on this machine. None is "auto" if RAY_ADDRESS is
        set, else "local". A connection that `ray.init` has made before is used.
    group_size : int, optional
        Recordings that a worker commits together. None for `shard_size` in Parquet, 500 in JSON.
    gpus_per_actor, cpus_per_actor : float, int, optional
        GPUs and cores of each worker. None for a GPU, if there are any, with its share of the cores, else at most 8 cores.
    actors : tuple of (int, int or None), default: (1, None)
        Minimum and maximum number of workers; None for as many as there is room for.
    progress : bool or Progress, default: False
        True shows a progress bar, in a terminal or a notebook. A function is called with the number of records done and
        failed in this attempt, and the number that it has to do.

    Returns
    -------
    CohortRun
        `summary`, and `run` as returned by `open_run`. For a shard, `run` has the results of all shards so far.

    Raises
    ------
    ECGFounderError
        If the run is refused before any work: settings that contradict each other (`SettingsError`), or a dataset,
        checkpoint or output folder that cannot be used. Faults of single files are not raised: these records fail.
    OSError
        If the output folder becomes unusable during the run. Finished records are kept; the same call resumes the run.
    StorageError
        If an object store does not answer any more, or denies access. Finished records are kept; the same call resumes the run.
    KeyboardInterrupt
        After an interrupt, when records in progress have been written. The same call resumes the run.

    Examples
    --------
    >>> import ecgfounder, pathlib, tempfile
    >>> from ecgfounder.demo import write_demo
    >>> folder = tempfile.TemporaryDirectory()
    >>> demo = write_demo(pathlib.Path(folder.name))
    >>> done = ecgfounder.embed_cohort(
    ...     demo.dataset,
    ...     f"{folder.name}/embeddings",
    ...     data_dir=demo.data_dir,
    ...     checkpoint=demo.checkpoint,
    ...     pooling="mean",
    ...     num_workers=0,
    ... )
    >>> done.summary.tally.done, done.summary.tally.failed
    (12, 1)
    >>> X, meta = done.run.arrays()
    >>> X.shape
    (12, 1024)
    >>> folder.cleanup()
    """
    if isinstance(dataset, str | os.PathLike):
        dataset = os.fspath(dataset)
    else:
        dataset = file_of(dataset, path_column, id_column, keep_columns)
    folder = working_folder()
    options = make_options(storage_options)
    default_dir = default_data_dir(dataset, options) or folder
    sizes = shard_and_group(shard_size, group_size, format)
    choices = {
        "recipe": recipe,
        "window": window,
        "stride": stride,
        "remainder": remainder,
        "lead": lead,
        "missing_leads": missing_leads,
        "resampling": resampling,
        "trim_zero_edges": trim_zero_edges,
    }
    settings = Settings(
        dataset=dataset,
        output_dir=output_place(output_dir, options),
        split=split,
        path_column=path_column,
        id_column=id_column,
        keep_columns=tuple(keep_columns),
        data_dir=folder_text(data_dir or default_dir, options),
        checkpoint=None if checkpoint is None else os.fspath(checkpoint),
        preparation=chosen_preparation(mode, preparation, choices),
        reader=reader,
        hints=Hints(sampling_rate, unit, None if leads is None else canonical_leads(leads)),
        engine=engine,
        precision=precision,
        device=device,
        compile=compiled,
        pooling=pooling,
        predictions=predictions if isinstance(predictions, bool) else os.fspath(predictions),
        statements=statements,
        heart_rate=heart_rate,
        dtype=dtype,
        format=format,
        layout=layout,
        shard_size=sizes[0],
        batch_size=batch_size,
        num_workers=num_workers,
        shard=shard,
        sample=sample,
        overwrite=overwrite,
        retry_failed=retry_failed,
        check_hashes=check_hashes,
        read_timeout=read_timeout,
        read_memory=read_memory,
        storage_options=options,
        driver=driver if isinstance(driver, str) else CALLED,
        group_size=sizes[1],
        actors=ActorSettings(ray_address, gpus_per_actor, cpus_per_actor, *actors),
        carrier=None if isinstance(driver, str) else driver,
    )
    interruption = Interruption()
    with _progress(progress) as told, _interruptible(interruption), closing(_Lines(told)) as console:
        summary = make_run(settings, console, interruption).execute()
    if summary.signal is not None:
        raise KeyboardInterrupt(
            f"stopped after {counted(summary.processed, 'recording')}; finished recordings are committed, and the same call "
            "resumes the run"
        )
    if summary.trouble is not None:
        raise StorageError(
            f"the run stopped: {summary.trouble}. Finished recordings are committed, and the same call resumes the run"
        )
    return CohortRun(summary, open_run(settings.output_dir, allow_incomplete=True, storage_options=storage_options))


class _Lines:
    """A console whose lines go to the package's log; with workers elsewhere, a line a minute about all of them."""

    def __init__(self, told: Progress) -> None:
        self._told = told
        self._minutes = Minutes(lambda pace: self.line(str(pace)), MINUTE)

    def line(self, text: str) -> None:
        log.info("%s", one_line(text))

    def progress(self, done: int, failed: int, total: int, detail: str = "") -> None:
        self._told(done, failed, total)
        if detail:
            self._minutes.count(done, failed, total, detail)

    def close(self) -> None:
        """Say no more."""
        self._minutes.close()


@contextmanager
def _progress(wanted: bool | Progress) -> Iterator[Progress]:
    """The receiver of progress: the caller's function, a progress bar, or nothing."""
    if callable(wanted):
        yield wanted
        return
    if not wanted or sys.stderr is None:  # a daemon may have no standard streams
        yield lambda _done, _failed, _total: None
        return
    from tqdm.auto import tqdm

    with tqdm(unit="ECG", smoothing=0.05) as bar:

        def show(done: int, failed: int, total: int) -> None:
            with suppress(OSError):  # the run continues if the progress bar can no longer be shown
                bar.total = total
                bar.set_postfix_str(f"failed {failed}", refresh=False)
                bar.update(done + failed - bar.n)

        yield show


@contextmanager
def _interruptible(interruption: Interruption) -> Iterator[None]:
    """The first SIGINT asks the run to end in order, a second one ends it at once; only the main thread can handle signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(number: int, _frame: Any) -> None:
        signal.signal(signal.SIGINT, before)
        interruption.request(number)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
