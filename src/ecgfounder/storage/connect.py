"""Connections to buckets, through obstore: credentials, region, time limits, and errors in a store's words.

In: a bucket and options. Out: a `Connection`, one per bucket and process, whose `ask` makes requests.
"""

from __future__ import annotations

import importlib
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from ecgfounder.errors import MissingDependencyError, SettingsError, StorageError
from ecgfounder.storage.options import CLIENT_OPTIONS, OPTIONS_OF, StorageOptions
from ecgfounder.storage.store import Conflict, Denied, Missing, Unavailable

T = TypeVar("T")

AWS = "https://s3.amazonaws.com"
"""Where the region of a bucket is asked for."""

FIRST_PATIENCE = {"connect_timeout": "5s", "read_timeout": "10s", "timeout": "60s"}, 3, 10.0
"""Time limits, retries and seconds for retries of a bucket that has not answered yet, so that a wrong one is refused soon."""
PATIENCE = {"connect_timeout": "5s", "read_timeout": "30s", "timeout": "300s"}, 10, 60.0
"""The same for one that has answered."""

_CREDENTIALS_OF = {
    "s3": (
        *("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ),
    "gs": ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_APPLICATION_CREDENTIALS", "SERVICE_ACCOUNT"),
    "az": (
        *("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_TOKEN"),
        *("AZURE_STORAGE_CLIENT_ID", "AZURE_CLIENT_ID", "AZURE_USE_AZURE_CLI", "AZURE_FEDERATED_TOKEN_FILE"),
    ),
}
"""Environment variables from which obstore takes credentials."""

_OPTIONS_WITH_CREDENTIALS = frozenset(
    (
        *("access_key_id", "web_identity_token_file", "skip_signature", "service_account", "service_account_key"),
        *("application_credentials", "bearer_token", "account_key", "client_id", "sas_key", "token"),
        *("federated_token_file", "use_azure_cli", "use_emulator"),
    )
)
_STORES = {"s3": "S3Store", "gs": "GCSStore", "az": "AzureStore"}
_BUCKETS = {"s3": "bucket", "gs": "bucket", "az": "container_name"}


def require_obstore() -> Any:
    """The package obstore.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        importlib.import_module("obstore.store")
        return importlib.import_module("obstore")
    except ImportError as error:
        raise MissingDependencyError("obstore", "reading s3://, gs:// and az://", "remote") from error


# --- waiting ---------------------------------------------------------------------------------------------------------

_tell_waiting: Callable[[bool], None] = lambda _waiting: None  # noqa: E731


def tell_waiting(tell: Callable[[bool], None]) -> None:
    """Let `tell` be called before and after each wait of this process's main thread, with whether it waits for a store."""
    global _tell_waiting
    _tell_waiting = tell


@contextmanager
def waiting() -> Iterator[None]:
    """Tell that the main thread waits for a store; other threads fetch ahead, and nobody waits for them as such."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _tell_waiting(True)
    try:
        yield
    finally:
        _tell_waiting(False)


# --- connections -----------------------------------------------------------------------------------------------------


class Connection:
    """One bucket's client in this process. It is thread-safe, and opened at the first request.

    Without credentials, in options or environment, requests are not signed, as for public buckets; if one is denied, it is
    signed with the credentials that the machine has (of an instance or a user), if any, and so are all later ones.
    """

    def __init__(self, scheme: str, bucket: str, options: StorageOptions) -> None:
        self._scheme = scheme
        self._bucket = bucket
        self._options = options
        self._lock = threading.Lock()
        self._client: Any = None
        self._anonymous = not _has_credentials(scheme, options)
        self._may_sign = self._anonymous
        self._has_answered = False

    def ask(self, work: Callable[[Any], T]) -> T:
        """The result of a request, `work`, which gets obstore's client.

        Raises
        ------
        StorageError
            One of its four kinds. A message never has text of an answer, a key or a secret.
        """
        try:
            return self._ask(work)
        except Denied as denied:
            if not self._may_sign:
                raise Denied(f"{denied}{self._advice()}") from denied.__cause__
        return self._ask_signed(work)

    def _ask(self, work: Callable[[Any], T]) -> T:
        client = self._opened()
        try:
            with waiting():
                result = work(client)
        except Exception as error:
            told = store_error(error)
            if not isinstance(told, Unavailable):
                self._be_patient()
            raise told from error
        self._be_patient()
        return result

    def _ask_signed(self, work: Callable[[Any], T]) -> T:
        """Ask with the machine's own credentials; without any, later requests stay unsigned."""
        with self._lock:
            self._may_sign, self._anonymous, self._client = False, False, None
        try:
            return self._ask(work)
        except (Denied, Unavailable) as error:
            with self._lock:
                self._anonymous, self._client = True, None
            raise Denied(f"access denied without credentials{self._advice()}") from error

    def _advice(self) -> str:
        names = {"s3": "AWS_ACCESS_KEY_ID or AWS_PROFILE", "gs": "GOOGLE_APPLICATION_CREDENTIALS"}
        wanted = names.get(self._scheme, "AZURE_STORAGE_ACCOUNT_KEY")
        return f"; none were found (set {wanted}, or the 'storage_options' parameter)" if self._anonymous else ""

    def _opened(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = _open(
                    self._scheme,
                    self._bucket,
                    self._options,
                    PATIENCE if self._has_answered else FIRST_PATIENCE,
                    self._anonymous,
                )
            return self._client

    def _be_patient(self) -> None:
        if not self._has_answered:
            with self._lock:
                self._has_answered, self._client = True, None


_connections: dict[tuple[str, str, StorageOptions], Connection] = {}
_process: int | None = None
_making = threading.Lock()


def connection_to(scheme: str, bucket: str, options: StorageOptions) -> Connection:
    """This process's connection to a bucket.

    Raises
    ------
    Unavailable
        If this process was forked from one that had a connection: obstore's threads do not exist in it, and a request would
        never end.
    """
    global _process
    with _making:
        if _process is not None and _process != os.getpid():
            raise Unavailable(
                "object stores cannot be used in a process that was forked after they were used; start processes with the "
                'method "spawn" (in a DataLoader, multiprocessing_context="spawn")'
            )
        _process = os.getpid()
        return _connections.setdefault((scheme, bucket, options), Connection(scheme, bucket, options))


def _has_credentials(scheme: str, options: StorageOptions) -> bool:
    """Whether options or environment have credentials, or say that there are none."""
    if options.among(_OPTIONS_WITH_CREDENTIALS) or any(os.environ.get(name) for name in _CREDENTIALS_OF[scheme]):
        return True
    if scheme == "s3":
        return bool(os.environ.get("AWS_PROFILE"))
    return scheme == "gs" and (Path.home() / ".config" / "gcloud" / "application_default_credentials.json").is_file()


def _open(
    scheme: str, bucket: str, options: StorageOptions, patience: tuple[Mapping[str, str], int, float], anonymous: bool
) -> Any:
    obstore = require_obstore()
    limits, retries, seconds = patience
    config: dict[str, Any] = dict(options.among(OPTIONS_OF[scheme]))
    client: dict[str, Any] = {**limits, **options.among(CLIENT_OPTIONS)}
    given: dict[str, Any] = {}
    if anonymous:
        config["skip_signature"] = True
    if scheme == "s3":
        endpoint = config.setdefault("endpoint", _endpoint())
        if not config["endpoint"]:
            del config["endpoint"]
        if endpoint.startswith("http://"):
            client.setdefault("allow_http", True)
        session = None if options.among(_OPTIONS_WITH_CREDENTIALS) else _profile()
        if session is not None:
            given["credential_provider"] = session
        if not (config.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
            named = None if session is None else session.config.get("region")
            config["region"] = named or ("us-east-1" if endpoint else region_of(bucket))
    config[_BUCKETS[scheme]] = bucket
    retry = {
        "max_retries": retries,
        "retry_timeout": timedelta(seconds=seconds),
        "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=8), "base": 2},
    }
    try:
        return getattr(obstore.store, _STORES[scheme])(
            config=config, client_options=client, retry_config=retry, **given
        )
    except Exception as error:  # noqa: BLE001 - of any kind; its message is left out, because it may quote a value
        names = ", ".join(name for name, _ in options.items) or "none"
        account = " It needs the name of the storage account (AZURE_STORAGE_ACCOUNT_NAME)." if scheme == "az" else ""
        raise SettingsError(
            f"{scheme}://{bucket}: a connection cannot be made with these options ({type(error).__name__}): {names}.{account}"
        ) from None


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _profile() -> Any:
    """Credentials of the profile in AWS_PROFILE, which boto3 reads, also for single sign-on; None without a profile.

    Raises
    ------
    MissingDependencyError
        If boto3 is not installed.
    SettingsError
        If there is no such profile, or no credentials in it.
    """
    if not os.environ.get("AWS_PROFILE") or os.environ.get("AWS_ACCESS_KEY_ID"):
        return None
    try:
        provider = importlib.import_module("obstore.auth.boto3").Boto3CredentialProvider
    except ImportError as error:
        raise MissingDependencyError("boto3", "the profile in AWS_PROFILE", "aws") from error
    try:
        return provider()
    except Exception as error:  # noqa: BLE001 - boto3 has many kinds of errors
        raise SettingsError(
            f"The profile in AWS_PROFILE cannot be used ({type(error).__name__}): is it in ~/.aws/config, and has it "
            "credentials? With single sign-on, log in first: aws sso login."
        ) from None


def region_of(bucket: str) -> str:
    """The AWS region of a bucket, which S3 tells everyone.

    Raises
    ------
    Unavailable
        If S3 does not answer.
    Missing
        If there is no such bucket.
    """
    import urllib.error  # only here: it takes as long as all of this package's stores
    import urllib.request

    request = urllib.request.Request(f"{AWS}/{bucket}", method="HEAD")
    try:
        with waiting(), urllib.request.urlopen(request, timeout=10) as answer:
            headers = answer.headers
    except urllib.error.HTTPError as error:  # 301 and 403 have the header too
        headers = error.headers
        if error.code == 404:
            raise Missing(f"there is no bucket {bucket!r}") from None
    except OSError as error:
        raise Unavailable(
            f"the region of the bucket {bucket!r} cannot be found: {AWS} does not answer; set AWS_REGION, or AWS_ENDPOINT_URL "
            "for a store of another provider"
        ) from error
    region = headers.get("x-amz-bucket-region")
    if not region:
        raise Unavailable(f"the region of the bucket {bucket!r} is not known; set AWS_REGION")
    return str(region)


# --- errors ----------------------------------------------------------------------------------------------------------

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_NO_PERMISSION_CODES = frozenset(
    ("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId", "AuthorizationHeaderMalformed")
)
_CAUSES = {
    "dns error": "the name of its host is not known",
    "Connection refused": "the connection is refused",
    "ConnectionRefused": "the connection is refused",
    "TimedOut": "no answer in time",
    "operation timed out": "no answer in time",
    "certificate": "its certificate is not accepted",
    "169.254.169.254": "the machine has no credentials",
    "Connect": "no connection",
}
"""Parts of obstore's messages, which quote whole requests and answers, and what is said instead."""

RANGE_NOT_SATISFIABLE = "416"


class BrokenReply(Unavailable):
    """The connection broke in the middle of a reply, which obstore does not ask for again in listings and deletions."""


def store_error(error: Exception) -> StorageError:
    """An error of obstore as one of a store, in words of a closed list."""
    text, kind = str(error), type(error).__name__
    found = _STATUS.search(text)
    status = "" if found is None else found[1]
    code = _CODE.search(text)
    shown = ", ".join(part for part in (status and f"status {status}", code[1] if code else "") if part)
    name = "" if code is None else code[1]
    if isinstance(error, StorageError):
        return error
    if name == "NoSuchBucket":
        return Missing("there is no such bucket")
    if isinstance(error, FileNotFoundError) or (status == "404" and kind == "GenericError"):
        return Missing("no such object")
    if (
        kind in ("PermissionDeniedError", "UnauthenticatedError")
        or status in ("401", "403")
        or name in _NO_PERMISSION_CODES
    ):
        return Denied(f"access denied ({shown or kind})")
    if kind in ("AlreadyExistsError", "PreconditionError"):
        return Conflict("it exists already, or has changed")
    if isinstance(error, ValueError) or kind == "InvalidPathError":  # among them UnicodeEncodeError
        return Missing("no object can have this name")
    if "IncompleteBody" in text or "response body error" in text:
        return BrokenReply("the connection broke in the middle of a reply")
    if status in ("301", "307", "308") or "redirect" in text.lower():
        return Unavailable("the bucket is in another region; set AWS_REGION")
    if status:
        return Unavailable(f"the store answers with an error ({shown})")
    cause = next((said for part, said in _CAUSES.items() if part in text), kind)
    return Unavailable(f"the store does not answer: {cause}")
