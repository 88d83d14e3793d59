"""Short names for contents: equal digests mean equal contents."""

from hashlib import sha256


def digest(content: bytes | str) -> str:
    """Return the first 16 hex digits of the SHA-256 of bytes, or of a text in UTF-8."""
    return sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]
