"""What must not be shown or stored: values whose names say that they are secret."""

from __future__ import annotations

import hashlib
import re

DIGEST_PREFIX = "sha256:"

_SECRET_NAME = re.compile(
    r"KEY|TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|CONN(ECTION)?[-_]?STR|AUTH|SIGNATURE|(?<![A-Z])(PWD|SAS|PAT)(?![A-Z])",
    re.IGNORECASE,
)


def looks_secret(name: str) -> bool:
    """Whether the value of an environment variable or option of this name is likely secret; rather yes than no."""
    return _SECRET_NAME.search(name) is not None


def digest(value: str) -> str:
    """Stands in for a secret value where only its change matters: the first 12 hexadecimal digits of its SHA-256."""
    return DIGEST_PREFIX + hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()[:12]
