"""Where a model of the Hugging Face kind comes from: an id of its hub, or a folder. What goes wrong there, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nemo_duplex.inputs import InputError, existing_folder


def local_folder(source: str, what: str) -> Path | None:
    """The folder that `source` names, or None where it is an id of the hub; `what` names it in the error ("pretrained_llm").

    Raises:
        InputError: for a path to a folder that is not there, is a file or is empty.
    """
    path = Path(source).expanduser()
    looks_local = path.is_absolute() or source.startswith((".", "~")) or len(path.parts) > 2
    return existing_folder(path, what) if looks_local or path.exists() else None


@contextmanager
def reading(source: str, what: str) -> Iterator[None]:
    """Whatever transformers and the hub raise while they read `source` is an InputError of one line.

    They raise dozens of kinds, over several lines, and none names the key of our config.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if Path(source).expanduser().exists():
            raise InputError(f"{what}: {source} cannot be read ({reason}). Save or download it again.") from error
        raise InputError(
            f"{what}: {source} is no folder here, and not to be had from the Hugging Face hub ({reason}). "
            "Check the name and the network, or give a local folder."
        ) from error
