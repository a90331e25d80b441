"""Take credentials out of text before anybody can read it: exact values first, then known shapes. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

SHOWN = "***"
_SHORTEST = 6  # a shorter "secret" would blank out ordinary words

# What libraries put into messages and tracebacks: signed URLs, authorization headers, URLs with a password.
_SHAPES = (
    re.compile(r"(?i)((?:X-Amz-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature)=)[^&\s'\"]+"),
    re.compile(
        r"(?i)((?:aws_secret_access_key|secret_access_key|session_token|password)['\"]?\s*[:=]\s*['\"]?)[^\s'\",}]+"
    ),
    re.compile(r"(?i)(x-amz-security-token['\"]?\s*[:=,]\s*b?['\"]?)[^\s'\",}]+"),
    re.compile(r"(?i)(Authorization['\"]?\s*[:=,]\s*b?['\"]?)[^'\"\r\n]+"),
    re.compile(r"(://)[^/\s:@]+:[^/\s@]+(?=@)"),
    re.compile(r"(?i)(replicad-key-1-)[a-z2-7]+"),
)


class Scrubber:
    """Replaces credentials by `***` in texts, and in the texts inside mappings and sequences."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # Longest first: one secret may be the beginning of another.
        self._secrets = sorted({text for text in secrets if len(text) >= _SHORTEST}, key=len, reverse=True)

    def text(self, text: str) -> str:
        """Return the text without credentials."""
        for secret in self._secrets:
            text = text.replace(secret, SHOWN)
        for shape in _SHAPES:
            text = shape.sub(rf"\1{SHOWN}", text)
        return text

    def value(self, value: object) -> object:
        """Return a JSON-like value with every text in it scrubbed; numbers and None as they are."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.value(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(inner) for inner in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self.text(str(value))
