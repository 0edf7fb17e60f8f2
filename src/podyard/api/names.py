"""Names made by the server from ``metadata.generateName``.

Source: apiserver ``storage/names`` and apimachinery ``util/rand`` (v1.36).
"""

from typing import Final

#: No vowels and none of the look-alikes 0, 1 and 3: no words appear by chance.
ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
SUFFIX_LENGTH: Final = 5
MAX_NAME_LENGTH: Final = 63


def name_suffix(random_bytes: bytes) -> str:
    """Return five letters drawn with the first five of ``random_bytes``.

    Raises:
        ValueError: fewer than five bytes were given.
    """
    if len(random_bytes) < SUFFIX_LENGTH:
        raise ValueError(f"a name suffix needs {SUFFIX_LENGTH} random bytes")
    chosen = random_bytes[:SUFFIX_LENGTH]
    return "".join(ALPHABET[byte % len(ALPHABET)] for byte in chosen)


def generate_name(prefix: str, random_bytes: bytes) -> str:
    """Return ``prefix`` (cut so that the name fits a DNS label) and a suffix."""
    room = MAX_NAME_LENGTH - SUFFIX_LENGTH
    return prefix[:room] + name_suffix(random_bytes)
