"""Modules that are called ``azureml…`` and ``azureml_user…``, and hold what is ours.

::

    import azureml.core          ──► finder ──► an empty module: nothing else is imported
    azureml.core.Workspace       ──► the module's __getattr__ ──► mpi_prs.azureml.workspace.Workspace
    from azureml.core import Foo ──► ImportError: mpi_prs does not have it, and what to use

The finder stands first among Python's own. By ``auto`` it steps aside for each of the two packages that is really
installed. Standard library only; user processes install it before the script is imported, in some 10 µs.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_MODULES = "mpi_prs.child.shims.names:MODULES"
_PACKAGES = {"azureml": "core", "azureml_user": "parallel_run"}
"""Package → the module without which it is not what it is named after, but some other folder of this name."""


def install(when: str) -> None:
    """Give the modules their names; a second call replaces what the first has done.

    Args:
        when: ``auto``: where the real package is not installed; ``always``: the real one is hidden, also where it is
            imported already; ``never``: nothing is done.

    Raises:
        ValueError: ``when`` is something else.
    """
    if when not in ("auto", "always", "never"):
        raise ValueError(f"expected auto, always or never, but got {when!r}")
    uninstall()
    if when == "never":
        return
    if when == "always":
        _forget(lambda _module: True)
    sys.meta_path.insert(0, Finder(hides_real=when == "always"))


def uninstall() -> None:
    """The names mean again what they would without us. What was imported by them stays what it is."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Finder)]
    _forget(is_ours)


def is_ours(module: ModuleType) -> bool:
    """Whether a module of Azure's name was made here."""
    return isinstance(getattr(module, "__loader__", None), _Loader)


def _forget(condition: Callable[[ModuleType], bool]) -> None:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in _PACKAGES and condition(module):
            del sys.modules[name]


def spec_from_others(finder: object, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    """What all finders but this one know of a module."""
    for other in list(sys.meta_path):
        find_spec = getattr(other, "find_spec", None)
        if other is not finder and find_spec is not None:
            spec: ModuleSpec | None = find_spec(name, path)
            if spec is not None:
                return spec
    return None


class Finder:
    """One of ``sys.meta_path``."""

    def __init__(self, *, hides_real: bool) -> None:
        self._hides_real = hides_real
        self._places: dict[str, list[str] | None] = {}  # package → its other folders; None: it is really installed

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:  # noqa: ARG002
        """The spec of a module of ours; less than 1 µs where the name is of no concern.

        Raises:
            ModuleNotFoundError: it would be a module of ours, and we don't have it.
        """
        package = name.partition(".")[0]
        if package not in _PACKAGES:
            return None
        if package not in self._places:
            self._places[package] = [] if self._hides_real else self._other_places(package)
        places = self._places[package]
        if places is None:
            return None
        if name in resolve(_MODULES):
            spec = ModuleSpec(name, _Loader(), origin="mpi_prs", is_package=True)  # type: ignore[arg-type]
            spec.submodule_search_locations = list(places) if name == package else []
            return spec
        found = spec_from_others(self, name, path)
        if found is None:
            # Not under its own name: `from package import name` would swallow the message.
            raise ModuleNotFoundError(_not_here(name), name=name.rpartition(".")[0])
        return found

    def _other_places(self, package: str) -> list[str] | None:
        """Folders of that name that are not the package: it may be a namespace, or somebody's folder of data."""
        spec = spec_from_others(self, package, None)
        if spec is None:
            return []
        places = spec.submodule_search_locations
        if spec.origin is not None or places is None:  # a module of its own, whatever is in it
            return None
        if spec_from_others(self, f"{package}.{_PACKAGES[package]}", places) is not None:
            return None
        return list(places)


class _Loader:
    """Makes a module whose attributes are looked up when they are asked for."""

    def create_module(self, spec: ModuleSpec) -> None:
        """The usual kind of module."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill it: with the means to look things up."""
        name = module.__name__
        modules = resolve(_MODULES)
        targets = modules[name]

        def lookup(attribute: str) -> Any:
            if attribute in targets:
                value = provided(targets[attribute])
                setattr(module, attribute, value)
                return value
            if f"{name}.{attribute}" in modules:
                return importlib.import_module(f"{name}.{attribute}")
            if attribute.startswith("__"):  # Python's own questions
                raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
            raise AttributeError(_not_here(f"{name}.{attribute}"))

        def listing() -> list[str]:
            below = (other[len(name) + 1 :] for other in modules if other.startswith(f"{name}."))
            return sorted({*vars(module), *targets, *(rest for rest in below if "." not in rest)})

        module.__doc__ = f"The names of {name} for what mpi_prs has; see docs/azureml.md."
        module.__getattr__ = lookup  # type: ignore[method-assign]
        module.__dir__ = listing  # type: ignore[method-assign]
        module.__all__ = sorted(name for name in targets if not name.startswith("_"))  # type: ignore[attr-defined]


def resolve(target: str) -> Any:
    """The object that ``module:attribute`` names."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


_in_user_process = sys.version_info < (3, 10)


def serve_entry_script() -> None:
    """From now on names mean what scripts have of them in every Python, see :mod:`mpi_prs.child.context.slice`."""
    global _in_user_process  # noqa: PLW0603
    _in_user_process = True


def provided(target: str) -> Any:
    """What scripts get for ``module:attribute``; what this Python cannot have fails in use."""
    if not _in_user_process:
        return resolve(target)
    in_context = resolve("mpi_prs.child.shims.names:CONTEXT")
    if target in in_context:
        return resolve(in_context[target])
    if target.startswith("mpi_prs.c"):
        return resolve(target)
    return resolve("mpi_prs.child.context.slice:or_stand_in")(target)


def _not_here(name: str) -> str:
    """What to say of a name of Azure's that we don't have."""
    import difflib

    advices, modules = resolve("mpi_prs.child.shims.names:ADVICE"), resolve(_MODULES)
    module, _, last = name.rpartition(".")
    advice = next((advices[part] for part in reversed(name.split(".")) if part in advices), "")
    if not advice:
        holders = [holder for holder, names in modules.items() if last in names]
        if holders:
            advice = f"it is in {min(holders, key=len)}"
    if not advice:
        below = [other.rpartition(".")[2] for other in modules if other.rpartition(".")[0] == module]
        near = difflib.get_close_matches(last, [*modules.get(module, ()), *below], n=2)
        if near:
            advice = f"did you mean {' or '.join(f'{module}.{other}' for other in near)}?"
    return f"mpi_prs does not have {name}; {advice or 'docs/azureml.md lists what it has'}"
