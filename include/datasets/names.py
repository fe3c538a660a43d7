"""What names of uploaded files say."""

import posixpath


def is_debris(key: str) -> bool:
    """Whether programs leave such a key beside their data: ``_SUCCESS``, ``.crc``, ``.DS_Store``, ``$folder$``."""
    name = posixpath.basename(key)
    return name.startswith(("_", ".")) or name.endswith((".crc", "_$folder$"))
