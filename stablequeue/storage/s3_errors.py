"""What the S3 SDK and its services say, as our own errors: one line, advice, no credentials.

Only error codes and our own words reach the message: a service's text may quote the access key.
"""

from collections.abc import Generator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - the SDK's name for it
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)

from stablequeue.errors import StoreUnavailable

ABSENT = frozenset({"404", "NoSuchKey", "NotFound"})
"""Codes for: there is no such object."""
TAKEN = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict"})
"""Codes for: an object appeared under that key meanwhile."""
NO_CONDITIONS = frozenset({"501", "NotImplemented", "InvalidRequest", "InvalidArgument"})
"""Codes with which services that do not know conditional writes refuse them."""

_NEEDS = "They must be allowed to list, read, write and delete."
_BY_CODE: dict[str, str] = {
    **dict.fromkeys(
        ["NoSuchBucket", "InvalidBucketName", *ABSENT],
        "there is no {where}. Create it, or correct its name.",
    ),
    **dict.fromkeys(
        [
            "401",
            "403",
            "AccessDenied",
            "AllAccessDisabled",
            "ExpiredToken",
            "InvalidAccessKeyId",
            "InvalidToken",
            "SignatureDoesNotMatch",
            "UnauthorizedAccess",
        ],
        f"{{where}} refused our credentials ({{code}}). Correct them in the store. {_NEEDS}",
    ),
    **dict.fromkeys(
        [
            "301",
            "400",
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraintException",
            "PermanentRedirect",
        ],
        "{where} is in another region ({code}). Correct the store's region.",
    ),
    **dict.fromkeys(
        ["507", "EntityTooLarge", "InsufficientCapacity", "QuotaExceeded", "XMinioStorageFull"],
        "{where} has no room left ({code}). Free some space or raise its quota.",
    ),
    "RequestTimeTooSkewed": "{where} says this machine's clock is wrong. Set the clock.",
}
_BY_TYPE: dict[type[Exception], str] = {
    NoCredentialsError: "there are no credentials for {where}. Enter them in the store.",
    PartialCredentialsError: "half of the credentials for {where} is missing. Enter both parts.",
    CredentialRetrievalError: "the credentials for {where} could not be fetched. Look at the SDK's"
    " own settings.",
    ProfileNotFound: "the SDK's profile for {where} does not exist. Look at AWS_PROFILE.",
    NoRegionError: "there is no region for {where}. Enter it in the store.",
    ParamValidationError: "the name of {where} is not valid. Correct it in the store.",
    ValueError: "the URL of {where} is not valid. Correct it in the store.",
    ConnectionError: "no connection to {where}. Is it running, and its URL right?",
    HTTPClientError: "the connection to {where} broke ({code}). Is it running?",
}


def code_of(error: ClientError) -> str:
    """Return the service's error code, e.g. `NoSuchKey`; from HEAD it is the bare status."""
    return str(error.response.get("Error", {}).get("Code", "")) or "no code"


@contextmanager
def s3_faults(store: str, where: str) -> Generator[None]:
    """Translate every failure of the SDK and of reading its answers.

    Args:
        store: Name of the store.
        where: The bucket and its endpoint, for people.

    Raises:
        StoreUnavailable: Always, for any of them.
    """
    try:
        yield
    except ClientError as error:
        code = code_of(error)
        text = _BY_CODE.get(code, "{where} answered {code}. Try later, or look at that service.")
        raise StoreUnavailable(store, text.format(where=where, code=code)) from None
    except (BotoCoreError, ValueError) as error:  # ValueError: an endpoint URL it cannot use
        text = next(
            (text for kind, text in _BY_TYPE.items() if isinstance(error, kind)),
            "{where} failed ({code}).",
        )
        message = text.format(where=where, code=type(error).__name__)
        raise StoreUnavailable(store, message) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreUnavailable(store, f"{where} failed: {reason}") from None
