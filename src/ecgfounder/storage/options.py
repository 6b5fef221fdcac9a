"""Options of object stores: credentials, endpoint, region and more, which a user gives instead of the environment.

In: a mapping, or JSON text. Out: validated `StorageOptions`, which show the names of the options and never their values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ecgfounder.errors import SettingsError

OptionValue = str | bool | int | float

_S3 = (
    *("access_key_id", "secret_access_key", "session_token", "role_arn", "role_session_name", "sts_endpoint"),
    *("web_identity_token_file", "region", "endpoint", "metadata_endpoint", "virtual_hosted_style_request"),
    *("skip_signature", "unsigned_payload", "request_payer", "checksum_algorithm"),
    *("server_side_encryption", "sse_kms_key_id", "sse_bucket_key_enabled", "sse_customer_key_base64"),
)
_GS = (
    "service_account",
    "service_account_key",
    "application_credentials",
    "base_url",
    "bearer_token",
    "skip_signature",
)
_AZ = (
    *("account_name", "account_key", "client_id", "client_secret", "tenant_id", "authority_host", "sas_key", "token"),
    *("use_emulator", "endpoint", "msi_endpoint", "object_id", "msi_resource_id", "federated_token_file"),
    *("use_azure_cli", "skip_signature", "encryption_key", "use_fabric_endpoint"),
)
OPTIONS_OF: dict[str, frozenset[str]] = {"s3": frozenset(_S3), "gs": frozenset(_GS), "az": frozenset(_AZ)}
"""The options of each scheme, by obstore's names."""

CLIENT_OPTIONS = frozenset(
    ("allow_http", "allow_invalid_certificates", "connect_timeout", "read_timeout", "timeout", "proxy_url")
)
"""Options of connections, for every scheme; times are text such as "30s"."""


@dataclass(frozen=True, slots=True, repr=False)
class StorageOptions:
    """Options by name, sorted; hashable and picklable. Its text has the names alone, because values may be secret."""

    items: tuple[tuple[str, OptionValue], ...] = ()

    def __repr__(self) -> str:
        return f"StorageOptions({', '.join(name for name, _ in self.items)})"

    def among(self, names: frozenset[str]) -> dict[str, OptionValue]:
        """The options with one of these names."""
        return {name: value for name, value in self.items if name in names}


NO_OPTIONS = StorageOptions()


def storage_options(given: Mapping[str, object] | StorageOptions | str | None) -> StorageOptions:
    """Options from a mapping, or from the text of a JSON object; options themselves are returned.

    Raises
    ------
    SettingsError
        If it is not an object of known options with texts, numbers, true or false as values. The message never has a value.
    """
    if given is None:
        return NO_OPTIONS
    if isinstance(given, StorageOptions):
        return given
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            given = ()  # type: ignore[assignment]
    if not isinstance(given, Mapping):
        raise SettingsError(
            "Invalid value for the 'storage_options' parameter. It must be a JSON object such as "
            '{"skip_signature": true} or {"region": "eu-central-1"}. (Its text is not shown, because it may hold secrets.)'
        )
    known = CLIENT_OPTIONS.union(*OPTIONS_OF.values())
    for name, value in given.items():
        if name not in known:
            raise SettingsError(
                "Invalid value for the 'storage_options' parameter. It has an option that is not known; known ones are "
                f"{', '.join(sorted(known))}."
            )
        if not isinstance(value, str | bool | int | float):
            raise SettingsError(
                f"Invalid value for the 'storage_options' parameter. {name} must be a text, a number, true or false."
            )
    return StorageOptions(tuple(sorted(given.items())))  # type: ignore[arg-type]
