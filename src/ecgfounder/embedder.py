"""ECGFounder from Python: embed a path, a recording or an array.

In: one of these, or an iterable of them. Out: arrays of documented shape, in the same order. The numbers equal those of
`ecgfounder embed`, because the stages (read, prepare, batch, embed) are the same.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, cast, overload

import numpy as np
import numpy.typing as npt

from ecgfounder.checks import check_choice, check_least
from ecgfounder.drivers.stream import Stream
from ecgfounder.ecg.leads import canonical_leads
from ecgfounder.ecg.recording import Recording
from ecgfounder.engines import Engine, create_engine
from ecgfounder.errors import (
    CheckpointError,
    ECGFounderError,
    MissingDependencyError,
    PrepareError,
    SettingsError,
)
from ecgfounder.escaping import facts_as_html, one_line
from ecgfounder.evidence import ALL_LEADS as OCCLUDED_TOGETHER
from ecgfounder.evidence import Evidence, Occluded, Occlusion, columns_of, contributions_of, times_of_tokens
from ecgfounder.machine import usable_cores
from ecgfounder.network.bundles import FEATURES, N_STATEMENTS, SAMPLES_PER_TOKEN, SPECS, published_labels, spec_of
from ecgfounder.network.checkpoint import find_checkpoint, looks_like_checkpoint
from ecgfounder.network.head import Head, labels_of
from ecgfounder.preprocess.preparation import ALL_LEADS, Preparation, chosen_preparation
from ecgfounder.preprocess.recipes import Recipe
from ecgfounder.preprocess.signals import Signal, prepare
from ecgfounder.preprocess.windows import cut_windows
from ecgfounder.readers import Given, is_given, label_of, read_ecg
from ecgfounder.readers.quantities import millivolts_per
from ecgfounder.readers.source import Hints
from ecgfounder.stages.collect import Finished
from ecgfounder.stages.embed import EmbedStage
from ecgfounder.stages.pooling import InputEmbedding, pooling_of
from ecgfounder.storage import storage_options as make_options

_POOLING_CHOICES = ("none", "mean")

if TYPE_CHECKING:
    import torch

__all__ = ["Embedder", "load", "recording_from_array"]

log = logging.getLogger(__name__)

ERRORS_CHOICES = ("raise", "return", "skip")

Array = npt.NDArray[np.float32]
Pooling = Literal["none", "mean"]
Errors = Literal["raise", "return", "skip"]
AnyRecording = Given | Recording | npt.NDArray[np.number[Any]]
"""One ECG: a path (`container::member` too), a file's content, a file object, a `Recording`, or samples [n_leads, n_samples]."""


# --- loading ---------------------------------------------------------------------------------------------------------


def load(
    mode: str = "12lead",
    checkpoint: str | os.PathLike[str] | None = None,
    *,
    engine: str = "auto",
    precision: str = "float32",
    device: str | None = None,
    compiled: bool = False,
    threads: int | None = None,
    recipe: str | Recipe | None = None,
    window: float | Literal["whole"] | None = None,
    stride: float | None = None,
    remainder: str | None = None,
    lead: str | None = None,
    missing_leads: str | None = None,
    resampling: str | None = None,
    preparation: Preparation | None = None,
    reader: str = "auto",
    storage_options: Mapping[str, object] | None = None,
) -> Embedder:
    """Load ECGFounder, ready to embed.

    Parameters
    ----------
    mode : str, default: "12lead"
        "12lead" or "1lead", the network.
    checkpoint : str or os.PathLike, optional
        A file, a folder that holds the mode's published file, OWNER/NAME on the Hugging Face Hub, or None for the published
        repository there. The Hub's local cache is looked at first.
    engine : str, default: "auto"
        "auto", "torch", "triton", "onnx" or "native"; see `ecgfounder.engines.create_engine`.
    precision : str, default: "float32"
        "float32", "bfloat16" or "float16" (GPU) for the network's arithmetic; embeddings are always float32.
    device : str, optional
        "cpu", "cuda", "cuda:1" ...; None takes the first GPU if there is one.
    compiled : bool, default: False
        Whether to compile the network with `torch.compile`, once for each length of recordings (about a minute each).
    threads : int, optional
        Number of computing threads on a CPU; None for the number of cores that this process may use.
    recipe : str or Recipe, optional
        "zscore" (the default), "filtered", "paper", or your own `Recipe`.
    window, stride : float or {"whole"} or None, float or None
        Seconds; see `Preparation`. "whole" disables the windows of the recipe.
    remainder, lead, missing_leads, resampling : str, optional
        See `Preparation`; None for its defaults.
    preparation : Preparation, optional
        A `Preparation` instead of the parameters `recipe` to `resampling`.
    reader : str, default: "auto"
        "auto" (format detected by content), "sierraecg" (Philips files, read by that package), "mortara_eli", "mfer" or
        "kardia_atc", "kardia_json" (formats that no file of a device has verified).
    storage_options : mapping, optional
        Options of object stores, for checkpoint and recordings; see `embed_cohort`.

    Returns
    -------
    Embedder

    Raises
    ------
    SettingsError
        If a value is not allowed, or values contradict each other.
    CheckpointError
        If the checkpoint does not exist, or does not hold the backbone's weights.
    MissingDependencyError
        If the engine needs an extra that is not installed.

    Examples
    --------
    With random weights; leave `checkpoint` out for the published ones.

    >>> import ecgfounder, numpy as np, pathlib, tempfile
    >>> from ecgfounder.demo import write_demo_checkpoint
    >>> folder = tempfile.TemporaryDirectory()
    >>> checkpoint = pathlib.Path(folder.name) / "random_weights.pth"
    >>> write_demo_checkpoint(checkpoint)
    >>> model = ecgfounder.load("12lead", checkpoint)
    >>> samples = np.random.default_rng(0).standard_normal((12, 5000))
    >>> model.embed(samples, sampling_rate=500, leads=ecgfounder.STANDARD_LEADS).shape
    (20, 1024)
    >>> model.close()
    >>> folder.cleanup()
    """
    choices = {
        "recipe": recipe,
        "window": window,
        "stride": stride,
        "remainder": remainder,
        "lead": lead,
        "missing_leads": missing_leads,
        "resampling": resampling,
    }
    if mode not in SPECS and looks_like_checkpoint(mode):
        raise SettingsError(
            f"Invalid value for the 'mode' parameter. It looks like a checkpoint: load(checkpoint={mode!r}), with "
            "mode='1lead' if it is one of one lead."
        )
    preparation = chosen_preparation(mode, preparation, choices)
    if threads is not None:
        check_least("threads", threads, 1)
    path = find_checkpoint(checkpoint, mode, make_options(storage_options))
    make = EngineMaker(engine, mode, path, precision, device, compiled, threads)
    return Embedder(
        make(), preparation, checkpoint=path, reader=reader, storage_options=storage_options, make_engine=make
    )


@dataclass(frozen=True)
class EngineMaker:
    """The parameters of `load` that concern the engine: makes the same engine again, in another process or on another device."""

    choice: str
    mode: str
    checkpoint: Path
    precision: str
    device: str | None
    compiled: bool
    threads: int | None

    def __call__(self) -> Engine:
        return create_engine(
            self.choice,
            mode=self.mode,
            checkpoint=self.checkpoint,
            precision=self.precision,
            device=self.device,
            threads=self.threads or usable_cores(),
            compiled=self.compiled,
        )


def _embedder_again(
    make: EngineMaker, preparation: Preparation, checkpoint: Path, reader: str, options: Mapping[str, object] | None
) -> Embedder:
    """A pickled embedder, with its network loaded again."""
    return Embedder(
        make(), preparation, checkpoint=checkpoint, reader=reader, storage_options=options, make_engine=make
    )


def recording_from_array(
    samples: npt.ArrayLike, sampling_rate: float, leads: Sequence[str], unit: str = "mV"
) -> Recording:
    """Make a `Recording` from an array.

    Parameters
    ----------
    samples : array_like
        [n_leads, n_samples], or [n_samples] for one lead; NaN for missing samples.
    sampling_rate : float
        In Hz.
    leads : sequence of str
        Lead names of the rows, in any usual spelling.
    unit : str, default: "mV"
        Unit of the samples: "mV", "uV", "V" ...

    Raises
    ------
    SettingsError
        If the numbers of rows and names differ, the samples are not real numbers, or the unit is not a voltage.
    ReadError
        If there are no samples, a lead is named twice, or the sampling rate is impossible.

    Examples
    --------
    >>> import numpy as np
    >>> recording_from_array(np.zeros((2, 1000)), 500, ["i", "Lead II"])
    Recording(array, 2 leads I II, 1000 samples at 500 Hz, 2 s)
    """
    array = np.atleast_2d(np.asanyarray(samples))
    if isinstance(array, np.ma.MaskedArray):
        array = np.where(np.ma.getmaskarray(array), np.nan, np.ma.getdata(array))
    if array.dtype.kind not in "fiu":
        raise SettingsError(f"An ECG's samples must be real numbers, got an array of {array.dtype}.")
    names = (leads,) if isinstance(leads, str) else tuple(leads)
    if array.ndim != 2:
        raise SettingsError(
            f"An array is one ECG, [n_leads, n_samples], got the shape {list(array.shape)}. "
            "Embedder.embed takes several of one length as a batch [N, n_leads, n_samples]."
        )
    if len(names) != len(array):
        turned = " Its columns are the leads: pass array.T." if array.shape[1] == len(names) else ""
        raise SettingsError(
            f"An array's rows are its leads: got the shape {list(array.shape)} and {len(names)} lead names.{turned}"
        )
    scale = millivolts_per(unit)
    if scale is None:
        raise SettingsError(
            f"Invalid value for the 'unit' parameter. Allowed values are 'V', 'mV', 'uV' and 'nV', but got {unit!r} "
            "instead."
        )
    with np.errstate(over="ignore"):  # the next stage handles infinite samples
        millivolts = np.ascontiguousarray(array * scale if scale != 1.0 else array, dtype=np.float32)
    return Recording(millivolts, float(sampling_rate), canonical_leads(names), "array")


# --- embedding -------------------------------------------------------------------------------------------------------


class StreamOptions(TypedDict, total=False):
    """Keyword arguments of `Embedder.predict`; `Embedder.embed` documents them."""

    sampling_rate: float | None
    leads: Sequence[str] | None
    unit: str | None
    batch_size: int | None
    errors: Errors
    progress: bool


class EmbedOptions(StreamOptions, total=False):
    """Keyword arguments of `Embedder.embed`, without `as_tensor`."""

    pooling: Pooling


class Embedder:
    """The network with its preparation and head; made by `load`.

    An embedding depends only on its recording, not on the other recordings, their order or the batch size. On a CPU it is
    bit-identical, also to what `ecgfounder embed` writes with the same settings. An embedder can be pickled: the other process
    loads the network from the same file. What is pickled holds the settings, with `storage_options`, and no weights.

    Attributes
    ----------
    engine : Engine
        The loaded network, `ecgfounder.engines.Engine`.
    preparation : Preparation
        The processing of a recording before the network.
    checkpoint : Path
        The file of the weights.
    reader : str
        "auto", "sierraecg", "mortara_eli", "mfer", "kardia_atc" or "kardia_json".
    """

    def __init__(
        self,
        engine: Engine,
        preparation: Preparation,
        *,
        checkpoint: Path,
        reader: str = "auto",
        storage_options: Mapping[str, object] | None = None,
        make_engine: EngineMaker | None = None,
    ) -> None:
        self.engine = engine
        self.preparation = preparation
        self.checkpoint = checkpoint
        self.reader = reader
        self._storage_options = storage_options
        self._make_engine = make_engine

    def __reduce__(self) -> tuple[Any, ...]:
        return _embedder_again, (self._maker, self.preparation, self.checkpoint, self.reader, self._storage_options)

    @property
    def _maker(self) -> EngineMaker:
        if self._make_engine is None:
            raise SettingsError(
                "This embedder was made from an engine, which cannot be made again: use ecgfounder.load."
            )
        return self._make_engine

    def __repr__(self) -> str:
        return f"Embedder({', '.join(text for _, text in self._facts())})"

    def _repr_html_(self) -> str:
        return facts_as_html("Embedder", [*self._facts(), ("checkpoint", str(self.checkpoint))])

    def _facts(self) -> list[tuple[str, str]]:
        """What a reader wants to know first, by name."""
        recipe = self.preparation.recipe
        described = [("recipe", f"recipe {recipe.name} v{recipe.version}"), ("engine", self.engine.describe())]
        return [("mode", self.mode), *described]

    def __enter__(self) -> Embedder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the network's memory; nothing can be embedded afterwards."""
        self.engine.close()

    @property
    def mode(self) -> str:
        """ "12lead" or "1lead"."""
        return self.preparation.mode

    @property
    def device(self) -> str:
        """The device of the network: "cpu", "cuda:0" ..."""
        return self.engine.device

    @property
    def dim(self) -> int:
        """Length of an embedding, the channels of a feature map: 1024."""
        return FEATURES

    def to(self, device: str | torch.device) -> Embedder:
        """Move the network to another device, by loading it there.

        Parameters
        ----------
        device : str or torch.device
            "cpu", "cuda", "cuda:1" ...

        Returns
        -------
        Embedder
            This object.

        Raises
        ------
        SettingsError
            If there is no such device, or the engine does not compute on it; the network stays where it is.
        """
        make = replace(self._maker, device=str(device))
        if str(device) != self.engine.device:
            engine = make()
            self.engine.close()
            self.engine = engine
        self._make_engine = make
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """The statements of `predict`, in its order: the published 150, or a fine-tuned checkpoint's own labels."""
        return labels_of(self.engine.head) or published_labels()

    def prepare(
        self,
        x: AnyRecording,
        *,
        sampling_rate: float | None = None,
        leads: Sequence[str] | None = None,
        unit: str | None = None,
    ) -> Signal:
        """Make the network's inputs of one recording, with the starts of its windows and its quality flags.

        Parameters and errors are those of `embed`.
        """
        return self._prepare(x, _hints(sampling_rate, leads, unit), "")

    @overload
    def embed(
        self,
        x: AnyRecording,
        *,
        as_tensor: Literal[False] = ...,
        **options: Unpack[EmbedOptions],
    ) -> Array: ...
    @overload
    def embed(
        self,
        x: AnyRecording,
        *,
        as_tensor: Literal[True],
        **options: Unpack[EmbedOptions],
    ) -> torch.Tensor: ...
    @overload
    def embed(
        self,
        x: Iterable[Any],
        *,
        as_tensor: bool = ...,
        **options: Unpack[EmbedOptions],
    ) -> Any: ...
    def embed(
        self,
        x: AnyRecording | Iterable[Any],
        *,
        sampling_rate: float | None = None,
        leads: Sequence[str] | None = None,
        unit: str | None = None,
        pooling: Pooling = "none",
        batch_size: int | None = None,
        errors: Errors = "raise",
        as_tensor: bool = False,
        progress: bool = False,
    ) -> Any:
        """Embed one recording, or each of an iterable.

        Parameters
        ----------
        x : str, os.PathLike, bytes, file object, Recording, array_like, or an iterable of these
            A path, a file's content, a file object in binary mode, a `Recording`, samples [n_leads, n_samples] (numpy array or
            tensor), a batch of samples [N, n_leads, n_samples], or an iterable of any of these but batches.
        sampling_rate, leads, unit : float or None, sequence of str or None, str or None
            Hz, lead names of the rows, and "mV" (default), "uV" ..., for arrays and for files that do not state them.
            With "1lead", `leads` may be left out for an array of one row.
        pooling : {"none", "mean"}, default: "none"
            "none" keeps the feature map over time, "mean" its mean, which ECGFounder's own code calls features.
        batch_size : int, optional
            Number of inputs per batch; None for the engine's default. Results do not depend on it.
        errors : {"raise", "return", "skip"}, default: "raise"
            For iterables: "raise" stops at the first recording that cannot be embedded; "return" puts its exception into
            the list; "skip" leaves it out and logs a warning. A single recording always raises.
        as_tensor : bool, default: False
            Whether to return torch tensors on the CPU instead of NumPy arrays.
        progress : bool, default: False
            Whether to show a progress bar, in a terminal or a notebook.

        Returns
        -------
        numpy.ndarray or list of numpy.ndarray
            Of one recording: float32 [T, 1024], T = ceil(n_samples at 500 Hz / 256), or [1024] with `pooling="mean"`. A
            preparation with a stride adds a leading dimension of W windows, `lead="all"` one of n_leads after it:
            [W, T, 1024], [W, n_leads, 1024]. Of several: one array [N, 1024] with `pooling="mean"`, and [N, T, 1024] for a
            batch; a list in their order if recordings may differ in T, W or n_leads, and with `errors="return"`.

        Raises
        ------
        ReadError, PrepareError, EmbeddingError
            If a file cannot be read, a recording cannot be prepared as an input, or its embedding is not finite. For an
            iterable, the message names the recording.
        SettingsError
            If a value is not allowed, or `x` has a type that cannot be embedded.
        MissingDependencyError
            If a file's format needs an extra that is not installed.
        """
        kept, hints = self._embedding_view(pooling), _hints(sampling_rate, leads, unit)
        if _is_single(x):
            [embedding] = self._results([x], kept, batch_size, "raise", hints, single=True)
            return _tensor(embedding) if as_tensor else embedding
        embeddings = list(self._results(_shown(_iterable(x), progress), kept, batch_size, errors, hints))
        if errors == "return" or not self._are_alike(x, pooling):
            return list(_tensors(embeddings)) if as_tensor else embeddings
        row = (FEATURES,) if pooling == "mean" else (self._n_tokens(x, hints.sampling_rate), FEATURES)
        stacked = np.stack(embeddings) if embeddings else np.empty((0, *row), np.float32)
        return _tensor(stacked) if as_tensor else stacked

    def embed_iter(
        self,
        recordings: Iterable[Any],
        *,
        sampling_rate: float | None = None,
        leads: Sequence[str] | None = None,
        unit: str | None = None,
        pooling: Pooling = "none",
        batch_size: int | None = None,
        errors: Errors = "raise",
        as_tensor: bool = False,
        progress: bool = False,
    ) -> Iterator[Any]:
        """`embed` for streams: takes recordings one at a time and yields their embeddings in the same order.

        At most a few batches are in memory. Parameters, results and errors are those of `embed`.
        """
        kept, hints = self._embedding_view(pooling), _hints(sampling_rate, leads, unit)
        embeddings = self._results(_shown(_iterable(recordings), progress), kept, batch_size, errors, hints)
        return _tensors(embeddings) if as_tensor else embeddings

    @overload
    def predict(self, x: AnyRecording, **options: Unpack[StreamOptions]) -> Array: ...
    @overload
    def predict(self, x: Iterable[Any], **options: Unpack[StreamOptions]) -> Any: ...
    def predict(
        self,
        x: AnyRecording | Iterable[Any],
        *,
        sampling_rate: float | None = None,
        leads: Sequence[str] | None = None,
        unit: str | None = None,
        batch_size: int | None = None,
        errors: Errors = "raise",
        progress: bool = False,
    ) -> Any:
        """Probability of each of the statements in `labels`, from the checkpoint's head.

        The probabilities are independent (sigmoid) and do not sum to one. They are the output of a research model, not a
        diagnosis. Parameters are those of `embed`.

        Returns
        -------
        numpy.ndarray or list of numpy.ndarray
            float32 [len(labels)], 150 of the published checkpoints, with leading dimensions for windows and leads as in
            `embed`. Of several: one array [N, len(labels)], or a list as in `embed`.

        Raises
        ------
        CheckpointError
            If the checkpoint has no head, or a head that is not for the 150 statements.
        ReadError, PrepareError, EmbeddingError, SettingsError, MissingDependencyError
            As `embed` does.
        """
        kept, hints = self._prediction_view(), _hints(sampling_rate, leads, unit)
        if _is_single(x):
            [probabilities] = self._results([x], kept, batch_size, "raise", hints, single=True)
            return probabilities
        found = list(self._results(_shown(_iterable(x), progress), kept, batch_size, errors, hints))
        if errors == "return" or not self._one_input_each:
            return found
        return np.stack(found) if found else np.empty((0, len(self.labels)), np.float32)

    def evidence(
        self,
        x: AnyRecording,
        labels: str | Sequence[str] | None = None,
        *,
        sampling_rate: float | None = None,
        leads: Sequence[str] | None = None,
        unit: str | None = None,
    ) -> Evidence:
        """What each token contributes to the logits of a recording.

        The mean of the contributions over tokens plus the bias is the logit, exactly but for rounding. It is no account of when
        something happened: every token depends on the whole of a 10 s recording. How far evidence lies where an event is, is
        measured by `ecgfounder.localisation.measure` (`ecgfounder localisation`) for the checkpoint in use.

        Parameters
        ----------
        x : str, os.PathLike, bytes, file object, Recording or array_like
            One recording, as for `embed`.
        labels : str or sequence of str, optional
            Statements, of `labels`; None for all.
        sampling_rate, leads, unit : float or None, sequence of str or None, str or None
            As for `embed`.

        Returns
        -------
        Evidence
            Contributions float32 [T, n_labels] and the times of the tokens, with leading dimensions as in `embed`.

        Raises
        ------
        CheckpointError
            If the checkpoint has no head with names, as for `predict`.
        ReadError, PrepareError, EmbeddingError, SettingsError, MissingDependencyError
            As `embed` does, and if a statement does not exist.
        """
        head, columns = self._named_head(), columns_of(None if labels is None else _texts(labels), self.labels)
        self._refuse_ragged_windows()
        signal = self._prepare(x, _hints(sampling_rate, leads, unit), "")
        kept = Kept(
            lambda feature_map: InputEmbedding(contributions_of(feature_map, head, columns)), attrgetter("embedding")
        )
        contributions = self._of_signal(signal, kept)
        n_tokens, rate = contributions.shape[-2], signal.sampling_rate
        times = np.stack([times_of_tokens(n_tokens, start, rate) for start in signal.starts])
        return Evidence(
            contributions,
            times if self.preparation.stride is not None else times[0],
            tuple(self.labels[column] for column in columns),
            head.bias[columns],
        )

    def occlusion(
        self,
        x: AnyRecording,
        labels: str | Sequence[str] | None = None,
        *,
        seconds: float = 0.512,
        each_lead: bool = True,
        sampling_rate: float | None = None,
        leads: Sequence[str] | None = None,
        unit: str | None = None,
    ) -> Occlusion:
        """How logits change when a part of the network's input is replaced: each span of time, in all leads and in each.

        The parts are replaced after filters and normalisation, by zeros and by a straight line: what both fills agree on depends
        less on the fill. An input with a part replaced is unlike all that the network has seen, so that changes are no causes.
        The network runs once for each fill, lead and span: 521 times for 12 leads of 10 s.

        Parameters
        ----------
        x : str, os.PathLike, bytes, file object, Recording or array_like
            One recording, as for `embed`.
        labels : str or sequence of str, optional
            Statements, of `labels`; None for all.
        seconds : float, default: 0.512
            Length of a span; the default is that of a token.
        each_lead : bool, default: True
            Whether parts of single leads are replaced too; without, the network runs 41 times for 10 s.
        sampling_rate, leads, unit : float or None, sequence of str or None, str or None
            As for `embed`.

        Returns
        -------
        Occlusion
            The drops of logits, float32 [n_fills, n_rows, n_spans, n_labels], with their rows and spans.

        Raises
        ------
        SettingsError
            If the preparation makes several inputs of a recording, or `seconds` is not valid.
        CheckpointError, ReadError, PrepareError, EmbeddingError, MissingDependencyError
            As `evidence` does.
        """
        head, columns = self._named_head(), columns_of(None if labels is None else _texts(labels), self.labels)
        if not self._one_input_each:
            raise SettingsError("an occlusion is of one input: use a preparation without a stride and with one lead")
        if not 0.02 <= seconds <= 60:
            raise SettingsError(
                f"Invalid value for the 'seconds' parameter. It must be from 0.02 to 60 s, got {seconds!r}."
            )
        signal = self._prepare(x, _hints(sampling_rate, leads, unit), "")
        length = max(1, round(seconds * signal.sampling_rate))
        occluded = Occluded(signal.inputs[0], length, each_lead=each_lead)
        kept = Kept(
            lambda feature_map: InputEmbedding(head.logits(feature_map[None])[0, columns]), attrgetter("embedding")
        )
        logits = self._of_signal(replace(signal, inputs=occluded, outer_shape=(len(occluded),)), kept)
        bounds = np.array(occluded.bounds) / signal.sampling_rate + signal.starts[0]
        names = (OCCLUDED_TOGETHER, *(signal.leads if occluded.shape[1] > 1 else ()))
        return Occlusion(
            (logits[0] - logits[1:]).reshape(*occluded.shape, len(columns)),
            names,
            bounds,
            tuple(self.labels[column] for column in columns),
            logits[0],
        )

    def _of_signal(self, signal: Signal, kept: Kept) -> Array:
        """The result of one prepared recording."""
        [outcome] = Stream(EmbedStage(self.engine, kept.keep), self.engine.batch_size).results([lambda: signal])
        if not isinstance(outcome, Finished):
            raise outcome
        return kept.result(outcome)

    @property
    def _one_input_each(self) -> bool:
        """Whether every recording is one input of the network, neither windows nor leads in sequence."""
        return self.preparation.stride is None and not (self.mode == "1lead" and self.preparation.lead == ALL_LEADS)

    def _are_alike(self, x: object, pooling: str) -> bool:
        """Whether the embeddings of several recordings have one shape, whatever the recordings hold."""
        is_batch = _as_array(x) is not None and not self.preparation.trim_zero_edges
        return self._one_input_each and (pooling == "mean" or is_batch)

    def _n_tokens(self, batch: Any, sampling_rate: float | None) -> int:
        """Tokens of each recording of a batch [N, n_leads, n_samples]; 0 if none has enough samples for an input."""
        target = self.preparation.recipe.sampling_rate
        try:
            spans, _ = cut_windows(round(batch.shape[2] * target / (sampling_rate or target)), self.preparation)
        except PrepareError:
            return 0
        return -(-(spans[0][1] - spans[0][0]) // SAMPLES_PER_TOKEN)

    def _refuse_ragged_windows(self) -> None:
        if self.preparation.remainder == "keep" and self.preparation.stride is not None:
            raise SettingsError(
                "remainder 'keep' gives a last window with fewer tokens, which one [W, T, ...] array cannot hold: use "
                "pooling='mean', or remainder 'drop' or 'pad'."
            )

    def _embedding_view(self, pooling: str) -> Kept:
        check_choice("pooling", pooling, _POOLING_CHOICES)
        if pooling == "none":
            self._refuse_ragged_windows()
        keep = pooling_of(pooling)
        # A copy: the feature maps of a batch are one array, which a view of one row would keep in memory.
        return Kept(
            lambda feature_map: keep(feature_map if pooling == "mean" else feature_map.copy()), attrgetter("embedding")
        )

    def _prediction_view(self) -> Kept:
        return Kept(pooling_of("mean", self._named_head()), attrgetter("probabilities"))

    def _named_head(self) -> Head:
        head = self.engine.head
        if head is None or labels_of(head) is None:
            found = "no head" if head is None else f"a head of {head.n_classes} classes without names"
            spec, n_classes = spec_of(self.mode), N_STATEMENTS
            raise CheckpointError(
                f"{self.checkpoint}: expected the head of {n_classes} statements (dense.weight [{n_classes}, {FEATURES}] and "
                f"dense.bias [{n_classes}]), or one with a list of distinct names under 'labels', found {found}. The published "
                f"files have it: {spec.filename} of {spec.repo_id}"
            )
        return head

    def _results(
        self,
        recordings: Iterable[Any],
        kept: Kept,
        batch_size: int | None,
        errors: str,
        hints: Hints,
        *,
        single: bool = False,
    ) -> Iterator[Any]:
        """The result of each recording, in order; failures as `errors` says."""
        check_choice("errors", errors, ERRORS_CHOICES)
        rows = self.engine.batch_size if batch_size is None else batch_size
        check_least("batch_size", rows, 1)
        return self._stream(recordings, kept, rows, errors, hints, single)

    def _stream(
        self, recordings: Iterable[Any], kept: Kept, batch_size: int, errors: str, hints: Hints, single: bool
    ) -> Iterator[Any]:
        names: deque[str] = deque()

        def prepared() -> Iterator[Callable[[], Signal]]:
            for number, x in enumerate(recordings):
                name = "" if single else os.fspath(x) if isinstance(x, str | os.PathLike) else f"recording {number}"
                names.append(name)
                yield partial(self._prepare, x, hints, name)

        for outcome in Stream(EmbedStage(self.engine, kept.keep), batch_size).results(prepared()):
            name = names.popleft()
            if isinstance(outcome, Finished):
                yield kept.result(outcome)
            elif errors == "raise":
                raise _named(outcome, name)
            elif errors == "return":
                yield _named(outcome, name)
            else:
                log.warning("left out: %s", one_line(str(_named(outcome, name))))

    def _prepare(self, x: Any, hints: Hints, name: str) -> Signal:
        """The signal of one recording; error messages begin with `name`, or the path."""
        recording = self._recording(x, hints)
        try:
            return prepare(recording, self.preparation)
        except PrepareError as error:
            raise _named(error, label_of(x) if is_given(x) and not name else name) from error
        except MemoryError as error:
            raise _named(PrepareError("needs more memory than is available"), name) from error

    def _recording(self, x: Any, hints: Hints) -> Recording:
        if isinstance(x, Recording):
            return x
        if is_given(x):
            return read_ecg(x, reader=self.reader, hints=hints, storage_options=self._storage_options)
        array = _as_array(x)
        if array is None:
            raise SettingsError(
                "Expected a path, a file's content or a file object, a Recording, or an array [n_leads, n_samples] with its "
                "sampling_rate and leads, got "
                f"an object of type {type(x).__name__!r}."
            )
        leads = hints.leads
        if leads is None and self.mode == "1lead" and (array.ndim == 1 or len(array) == 1):
            leads = ("I",) if self.preparation.lead == "all" else (self.preparation.lead,)
        if hints.sampling_rate is None or leads is None:
            absent = "sampling_rate" if hints.sampling_rate is None else "leads"
            raise SettingsError(
                f"An array does not state its {absent}: embed(array, sampling_rate=500, leads=['I', 'II', ...]), with a "
                "name for each row."
            )
        return recording_from_array(array, hints.sampling_rate, leads, hints.unit or "mV")


@dataclass(frozen=True)
class Kept:
    """What to keep of each feature map, and which part of that is the result."""

    keep: Callable[[Array], InputEmbedding]
    part: Callable[[InputEmbedding], Array | None]

    def result(self, finished: Finished) -> Array:
        """The result of one recording: its only embedding, or all of them with leading dimensions for windows and leads."""
        parts = [part for each in finished.embeddings or () if (part := self.part(each)) is not None]
        if not finished.outer_shape:
            return parts[0]
        return np.stack(parts).reshape(*finished.outer_shape, *parts[0].shape)


# --- inputs ----------------------------------------------------------------------------------------------------------


def _hints(sampling_rate: float | None, leads: Sequence[str] | None, unit: str | None) -> Hints:
    names = (leads,) if isinstance(leads, str) else leads
    return Hints(sampling_rate, unit, None if names is None else canonical_leads(names))


def _texts(labels: str | Sequence[str]) -> Sequence[str]:
    return [labels] if isinstance(labels, str) else labels


def _is_single(x: object) -> bool:
    """Whether `x` is one recording; anything else is treated as an iterable, an array of three dimensions too."""
    array = _as_array(x)
    return isinstance(x, Recording) or is_given(x) or (array is not None and array.ndim != 3)


def _as_array(x: object) -> npt.NDArray[Any] | None:
    """The numbers of an array or tensor; None for anything else, including arrays of text (paths)."""
    torch = sys.modules.get("torch")  # if torch was never imported, `x` is not a tensor
    if torch is not None and isinstance(x, torch.Tensor):
        return cast("npt.NDArray[Any]", x.detach().cpu().numpy())
    return x if isinstance(x, np.ndarray) and x.dtype.kind not in "OSU" else None


def _iterable(x: object) -> Iterable[Any]:
    if not isinstance(x, Iterable):
        raise SettingsError(
            "Expected a path, a Recording, an array [n_leads, n_samples], or an iterable of these, got an object of "
            f"type {type(x).__name__!r}."
        )
    return x


def _shown(recordings: Iterable[Any], progress: bool) -> Iterable[Any]:
    """The recordings, with a progress bar of those that were taken."""
    if not progress or sys.stderr is None:  # a daemon may have no standard streams
        return recordings
    from tqdm.auto import tqdm

    return cast("Iterable[Any]", tqdm(recordings, unit="ECG"))


def _named(error: ECGFounderError, name: str) -> ECGFounderError:
    """The same error with the recording's name in front of the message, if it is not there yet."""
    if not name or str(error).startswith(name) or isinstance(error, MissingDependencyError):
        return error
    return type(error)(f"{name}: {error}")


# --- outputs ---------------------------------------------------------------------------------------------------------


def _tensor(output: Any) -> Any:
    import torch

    return torch.from_numpy(output) if isinstance(output, np.ndarray) else output


def _tensors(outputs: Iterable[Any]) -> Iterator[Any]:
    return map(_tensor, outputs)
