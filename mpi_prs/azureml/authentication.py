"""Azure's ways to log in: taken wherever Azure takes them, and of no effect, since nobody has to log in to a folder.

Their parameters, secrets among them, are neither kept nor checked. What would talk to Azure is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from mpi_prs.core.azure_names import Surface

_NO_TOKENS = "a workspace of mpi_prs is a folder: nobody logs in, and there are no tokens"


class AbstractAuthentication(Surface):
    """What the others are kinds of."""

    _INSTEAD: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("get_authentication_header", "get_token", "signed_session"), _NO_TOKENS
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Everything is accepted and ignored."""
        del args, kwargs

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class InteractiveLoginAuthentication(AbstractAuthentication):
    """``force``, ``tenant_id`` and ``cloud`` are ignored; no browser is opened."""


class ServicePrincipalAuthentication(AbstractAuthentication):
    """``tenant_id``, ``service_principal_id``, ``service_principal_password``, … are ignored, and not kept."""


class AzureCliAuthentication(AbstractAuthentication):
    """``cloud`` is ignored; no ``az`` is called."""


class MsiAuthentication(AbstractAuthentication):
    """``identity_config`` and ``cloud`` are ignored."""


class TokenAuthentication(AbstractAuthentication):
    """``get_token_for_audience`` and ``cloud`` are ignored; the function is never called."""


class ArcTokenAuthentication(AbstractAuthentication):
    """``cloud`` is ignored."""


class AzureMLTokenAuthentication(AbstractAuthentication):
    """All parameters are ignored."""
