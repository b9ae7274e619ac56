"""TensorFlow 1 for scripts that were written for it: ``import tensorflow`` gives TensorFlow 2's interface of version 1.

::

    import tensorflow as tf      ──► the real package is imported, its behaviour set to version 1
    tf.Session, tf.placeholder   ──► tensorflow.compat.v1
    tf.function, tf.__version__  ──► what version 1 does not have: the real package
    tensorflow.python…, .keras   ──► the real package's modules

So graphs, sessions and checkpoints of version 1 work; what was no part of TensorFlow itself (``tf.contrib``) is gone.
With the package ``tf_keras`` (Keras 2) installed, ``tf.keras`` and ``tf.layers`` are what they were as well. Standard
library only, until TensorFlow is imported.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from mpi_prs.child.shims.finder import spec_from_others

_log = logging.getLogger("mpi_prs")

_TENSORFLOW = "tensorflow"
_GONE = {
    "contrib": "tf.contrib was no part of TensorFlow 2: tf_slim, tensorflow_addons and others took over parts of it",
}


def install() -> None:
    """From now on ``import tensorflow`` means version 1; where it is imported already, for who imports it anew."""
    loaded = sys.modules.get(_TENSORFLOW)
    if isinstance(loaded, TensorFlow1):
        return
    uninstall()
    if loaded is None:
        sys.meta_path.insert(0, TensorFlowFinder())
    else:
        _prefer_keras_2()
        sys.modules[_TENSORFLOW] = _as_version_1(loaded)


def uninstall() -> None:
    """An import of TensorFlow means again what it would; its behaviour stays, once it was set."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, TensorFlowFinder)]
    loaded = sys.modules.get(_TENSORFLOW)
    if isinstance(loaded, TensorFlow1):
        sys.modules[_TENSORFLOW] = loaded.real


class TensorFlowFinder:
    """One of ``sys.meta_path``: what others find under this name is loaded in another way."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:  # noqa: ARG002
        """The spec of ``tensorflow``."""
        if name != _TENSORFLOW:
            return None
        spec = spec_from_others(self, name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
        return spec


class _Loader:
    """Loads the real package, and leaves the other in its place."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:  # what else loaders are asked for: sources, resources
        return getattr(self._real, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the real loader does."""
        module: ModuleType | None = self._real.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Import it all. Under its name Python then finds, and gives to the script, what stands in ``sys.modules``."""
        _prefer_keras_2()
        self._real.exec_module(module)
        sys.modules[_TENSORFLOW] = _as_version_1(module)


class TensorFlow1(ModuleType):
    """The package as the script sees it.

    Attributes:
        real: the real package.
    """

    def __init__(self, real: ModuleType, version_1: Any) -> None:
        super().__init__(_TENSORFLOW, version_1.__doc__)
        self.real = real
        self._version_1 = version_1
        for name in ("__path__", "__spec__", "__file__", "__loader__", "__package__", "__version__"):
            if hasattr(real, name):
                setattr(self, name, getattr(real, name))

    def __getattr__(self, name: str) -> Any:
        for source in (self._version_1, self.real):
            try:
                value = getattr(source, name)
            except AttributeError:
                continue
            setattr(self, name, value)
            return value
        advice = _GONE.get(name, "neither its interface of version 1 nor that of version 2 has it")
        raise AttributeError(f"TensorFlow {self.real.__dict__.get('__version__', '')} has no tf.{name}: {advice}")

    def __dir__(self) -> list[str]:
        return sorted({*dir(self._version_1), *dir(self.real)})


def _as_version_1(real: ModuleType) -> ModuleType:
    """The package with its behaviour set to version 1; the real one itself where it is version 1."""
    version = str(getattr(real, "__version__", ""))
    if version.startswith("1."):
        return real
    version_1 = real.compat.v1
    log = logging.getLogger("tensorflow")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of what is done here on purpose
    try:
        version_1.disable_v2_behavior()
    finally:
        log.setLevel(level)
    _log.info("TensorFlow %s is used through its interface of version 1 (tensorflow.compat.v1)", version)
    return TensorFlow1(real, version_1)


def _prefer_keras_2() -> None:
    """Keras 3 knows no graphs and sessions. TensorFlow asks this variable when it is first asked for Keras."""
    if importlib.util.find_spec("tf_keras") is not None:
        os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
