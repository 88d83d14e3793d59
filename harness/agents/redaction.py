"""A key, taken out of what a provider wrote, before that is shown or kept."""

import re

SHORTEST = 8
"""Characters of a key that is worth hiding. What is shorter stands for one (``token``, ``none``)
where a server of one's own wants anything, and would hide words of its messages."""

HIDDEN = "[key]"

_LOOKS_LIKE_ONE = re.compile(r"\b(?:sk[-_]|AIza)[\w*.-]{6,}")


def without_key(text: str, key: str) -> str:
    """Return ``text`` with a key, ours or what looks like one, replaced where it stands by itself.

    A key that is a part of a longer word (``tokens``) is left: that word is not the key.
    """
    if len(key) >= SHORTEST:
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(key)}(?![A-Za-z0-9])", HIDDEN, text)
    return _LOOKS_LIKE_ONE.sub(HIDDEN, text)
