"""Removes a key from text that a provider wrote, before the text is shown or kept."""

import re

SHORTEST = 8
"""Least characters of a key that is hidden. A shorter key is a placeholder (``token``, ``none``)
for a user's own server that wants any key; hiding it would hide words of the server's messages."""

HIDDEN = "[key]"

_LOOKS_LIKE_ONE = re.compile(r"\b(?:sk[-_]|AIza)[\w*.-]{6,}")


def without_key(text: str, key: str) -> str:
    """Return ``text`` with ``key``, and everything that looks like a key, replaced.

    ``key`` as a part of a longer word (``tokens``) stays: that word is not the key.
    """
    if len(key) >= SHORTEST:
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(key)}(?![A-Za-z0-9])", HIDDEN, text)
    return _LOOKS_LIKE_ONE.sub(HIDDEN, text)
