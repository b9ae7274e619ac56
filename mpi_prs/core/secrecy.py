"""What must not be shown or stored: told by the names of values, and by what values look like.

::

    looks_secret        a name, such as HF_TOKEN or --api-key
    scrub               a text without what looks secret in it: for messages and logs
    seal                the same with digests: for what is stored, where only a change matters; sealed again it stays
    seal_arguments      by the names of options as well

Standard library only, and for Python 3.7 as well.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence

_DIGEST = re.compile(r"sha256:[0-9a-f]{12}(?![0-9a-f])")

_SECRET_NAME = re.compile(
    r"KEY|TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|CONN(ECTION)?[-_]?STR|AUTH|BEARER|JWT|SIGNATURE"
    r"|(?<![A-Z])(PWD|SAS|PAT)(?![A-Z])",
    re.IGNORECASE,
)
_NAME = re.compile(r"[\w.+-]+")

# What stands before a secret, the secret, and what must stand behind it. None is what data may be called: a folder of a
# partition (AccountKey=17/), or words with hyphens (sk-SK-common-voice-17), for URLs with a secret are refused.
_SHAPES = tuple(
    re.compile(pattern)
    for pattern in (
        r"((?<![\w/-])(?i:sig|X-Amz-Signature|X-Goog-Signature|X-Amz-Security-Token)=)([^&\s\"'<>;]+)()",
        r"((?<!/)(?i:AccountKey|SharedAccessKey|SharedAccessSignature)=)([^;\s\"']+)()",
        r"((?<![\w/])(?:Password|PWD|Pwd)=)([^;\s\"']+)()",
        r"(://[^/:@\s]*:)([^/@\s]+)(@)",
        r"((?i:password|passwd|secret|api_?key|account_?key|access_?token)\w{0,20}[\"']\s*:\s*[\"'])([^\"']+)()",
        r"(\bBearer\s+)([\w.~+/-]{8,}=*)()",
        r"(\b)((?:hf_|ghp_|gho_)[A-Za-z0-9]{16,}|(?:github_pat_|glpat-|xox[abp]-)[\w-]{16,})()",
        r"(\b)(sk-(?:(?:proj|ant|svcacct|admin|or-v\d)-[\w-]{16,}|(?=[A-Za-z]*\d)[A-Za-z0-9]{20,}))()",
        r"(\b)(eyJ[\w-]{10,}\.[\w-]+\.[\w-]*)()",
        r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)([^-]+)(-----END)",
    )
)


def looks_secret(name: str) -> bool:
    """Whether the value of an environment variable or option of this name is likely secret; rather yes than no."""
    return _SECRET_NAME.search(name) is not None


def holds_secret(text: str) -> bool:
    """Whether something in a text looks like a key, a token, a signature or a password in a URL."""
    return _replace(text, lambda _: "***") != text


def scrub(text: str, secrets: Sequence[str] = ()) -> str:
    """A text without these secrets, and without whatever looks like one."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return _DIGEST.sub("***", _replace(text, lambda _: "***"))


def seal(text: str) -> str:
    """A text with a digest for whatever looks like a secret in it."""
    return _replace(text, digest)


def seal_arguments(arguments: Sequence[str]) -> Iterator[str]:
    """Arguments of a command, each sealed, with a digest for the value of each option that looks secret by its name:
    ``--token X``, ``--token=X`` and ``token=X``."""
    is_value_of_secret = False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        is_secret = looks_secret(name) and _NAME.fullmatch(name) is not None
        if is_value_of_secret and not name.startswith("-"):
            yield digest(argument)
        elif is_secret and equals:
            yield f"{name}={digest(value)}"
        else:
            yield seal(argument)
        is_value_of_secret = is_secret and not equals and name.startswith("-")


def is_digest(text: object) -> bool:
    """Whether a text is a digest and nothing else."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def digest(value: str) -> str:
    """Stands in for a secret value where only its change matters: the first 12 hexadecimal digits of its SHA-256. That
    of a digest is itself."""
    if is_digest(value):
        return value
    return f"sha256:{hashlib.sha256(value.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"


def _replace(text: str, stand_in: Callable[[str], str]) -> str:
    for shape in _SHAPES:
        text = shape.sub(lambda found: found[1] + stand_in(found[2]) + found[3], text)
    return text
