"""Graph's refusals: HTTP status, ``error.code`` and text, as its clients have seen them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping


class GraphError(Exception):
    """A refusal; ``headers`` may carry Retry-After."""

    def __init__(self, status: int, code: str, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status} {code}: {text}")
        self.status, self.code, self.text = status, code, text
        self.headers = dict(headers or {})

    def to_json(self, now: float, request_id: str, client_request_id: str) -> dict[str, object]:
        """The body of the answer; ``now`` is Unix time."""
        stamp = datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
        inner = {"date": stamp, "request-id": request_id, "client-request-id": client_request_id}
        return {"error": {"code": self.code, "message": self.text, "innerError": inner}}


def bad_token(reason: str) -> GraphError:
    """401: expired, forged, or for another resource."""
    text = f"Access token validation failure. {reason}"
    headers = {"WWW-Authenticate": 'Bearer realm="", error="invalid_token"'}
    return GraphError(401, "InvalidAuthenticationToken", text, headers)


def access_denied() -> GraphError:
    """403: the permission or the mailbox scope is missing."""
    return GraphError(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")


def directory_denied() -> GraphError:
    """403 of a directory call."""
    return GraphError(
        403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation."
    )


def send_as_denied() -> GraphError:
    """403: another From than the mailbox of the address called."""
    text = (
        "The user account which was used to submit this request does not have the right to send mail on behalf "
        "of the specified sending account."
    )
    return GraphError(403, "ErrorSendAsDenied", text)


def unknown_user(user: str) -> GraphError:
    """404: nobody of that name."""
    return GraphError(404, "ErrorInvalidUser", f"The requested user '{user}' is invalid.")


def no_mailbox() -> GraphError:
    """404: a user without an Exchange Online mailbox."""
    text = "The mailbox is either inactive, soft-deleted, or is hosted on-premise."
    return GraphError(404, "MailboxNotEnabledForRESTAPI", text)


def not_found() -> GraphError:
    """404: no such item."""
    return GraphError(404, "ErrorItemNotFound", "The specified object was not found in the store.")


def no_such_path(path: str) -> GraphError:
    """404 or 400: not an address of the API."""
    return GraphError(404, "ResourceNotFound", f"Resource not found for the segment '{path}'.")


def invalid_recipients(text: str = "At least one recipient is not valid.") -> GraphError:
    """400: none at all, or one that is no address."""
    return GraphError(400, "ErrorInvalidRecipients", text)


def bad_body(text: str) -> GraphError:
    """400: JSON that is not of the schema."""
    return GraphError(400, "RequestBodyRead", text)


def unknown_property(name: str, kind: str) -> GraphError:
    """400: no such property on the type."""
    text = (
        f"The property '{name}' does not exist on type 'microsoft.graph.{kind}'. Make sure to only use property "
        "names that are defined by the type or mark the type as open type."
    )
    return bad_body(text)


def read_only(name: str) -> GraphError:
    """400: a property that the service sets itself."""
    return GraphError(400, "ErrorInvalidPropertySet", f"The property '{name}' is read-only and can't be set.")


def bad_request(text: str) -> GraphError:
    """400 in general."""
    return GraphError(400, "BadRequest", text)


def bad_base64() -> GraphError:
    """400: the MIME body is not base64."""
    return GraphError(400, "ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content.")


def bad_mime() -> GraphError:
    """400: base64, but no message in it."""
    return GraphError(400, "ErrorMimeContentInvalid", "The MIME content is not valid.")


def bad_header(name: str) -> GraphError:
    """400: a custom header that does not begin with x-."""
    text = f"The internet message header name '{name}' should start with 'x-' or 'X-'."
    return GraphError(400, "InvalidInternetMessageHeader", text)


def too_many_headers(limit: int) -> GraphError:
    """400: more custom headers than a message may have (unverified figure)."""
    text = f"Maximum number of headers in one message should be less than or equal to {limit}."
    return GraphError(400, "InvalidInternetMessageHeaderCollection", text)


def request_too_large() -> GraphError:
    """413: the request is over about 4 MB."""
    return GraphError(413, "RequestEntityTooLarge", "The request is larger than the service accepts.")


def message_too_large() -> GraphError:
    """400: the message is over the mailbox's own limit."""
    return GraphError(400, "ErrorMessageSizeExceeded", "The message exceeds the maximum supported size.")


def attachment_too_small() -> GraphError:
    """400: an upload session for a file that fits into one request."""
    text = "The attachment size is less than the minimum size of an upload session."
    return GraphError(400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize", text)


def attachment_too_large() -> GraphError:
    """400: beyond 150 MB."""
    return GraphError(400, "ErrorAttachmentSizeLimitExceeded", "The attachment size exceeds the limit.")


def no_user() -> GraphError:
    """400: ``/me`` with an app's token."""
    return bad_request("/me request is only valid with delegated authentication flow.")


def unsupported_media(kind: str) -> GraphError:
    """415: neither JSON nor, where it may be, base64 MIME as text/plain."""
    return GraphError(415, "UnsupportedMediaType", f"The content type '{kind}' is not supported here.")


def length_required() -> GraphError:
    """411: the request must say how long it is."""
    return GraphError(411, "LengthRequired", "A Content-Length header is required.")


def session_over() -> GraphError:
    """404: an upload address that is not known, was completed or cancelled, or has expired."""
    return GraphError(404, "ErrorItemNotFound", "The upload session was not found or has expired.")


def bad_range(text: str) -> GraphError:
    """416: a chunk out of order, or of another length than it says."""
    return GraphError(416, "InvalidContentRange", text)


def mailbox_full() -> GraphError:
    """507."""
    return GraphError(507, "ErrorQuotaExceeded", "The mailbox storage quota has been exceeded.")


def quota_exceeded() -> GraphError:
    """403: the mailbox's recipients of the day are used up."""
    text = "The message can't be submitted because the sender's submission quota was exceeded."
    return GraphError(403, "ErrorExceededMessageLimit", text)


def throttled(text: str, seconds: float) -> GraphError:
    """429 with Retry-After."""
    return GraphError(429, "ApplicationThrottled", text, {"Retry-After": str(max(1, round(seconds)))})


def bad_proof() -> GraphError:
    """401: addKey or removeKey with a proof that proves nothing; Graph does not say what is wrong with it."""
    return GraphError(401, "Authentication_MissingOrMalformed", "Access Token missing or malformed.")


def bad_key(text: str) -> GraphError:
    """400: a key that cannot be added, or is not there to be removed."""
    return GraphError(400, "Request_BadRequest", text)
