"""How long a fresh process of a build takes to import, to help, to restore an agent; two builds in turns."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError

_RESTORE = "import sys; from nemo_duplex import DuplexS2SModel; DuplexS2SModel.restore_from(sys.argv[1], map_location='cpu')"
# Without the folder in which it runs, which a script does not have on its path.
_WHERE = "import sys; sys.path[:] = filter(None, sys.path); import nemo_duplex; print(nemo_duplex.__file__)"
#: What is started, by its name: arguments of Python; AGENT is the path of a `.nemo`.
COMMANDS = {
    "import nemo_duplex": ["-c", "import nemo_duplex"],
    "import DuplexS2SModel": ["-c", "from nemo_duplex.models.duplex_s2s import DuplexS2SModel"],
    "train_codec.py --help": ["examples/train_codec.py", "--help"],
    "restore an agent": ["-c", _RESTORE, "AGENT"],
}


def started(name: str, checkout: Path, agent: Path) -> Seconds:
    """What one of `COMMANDS` takes in a fresh process of the build in `checkout`, from its start to its end.

    Raises:
        InputError: if it fails, with the last line that it wrote.
    """
    arguments = [str(agent) if argument == "AGENT" else argument for argument in COMMANDS[name]]
    start = time.perf_counter()
    _run(name, arguments, checkout)
    return time.perf_counter() - start


def check_package(checkout: Path) -> None:
    """Checks that a fresh process of this build takes nemo_duplex from it.

    Raises:
        InputError: naming the package that it takes.
    """
    found = _run("import nemo_duplex", ["-c", _WHERE], checkout)
    if not Path(found.strip()).resolve().is_relative_to(checkout.resolve()):
        raise InputError(f"A fresh process takes nemo_duplex from {found.strip()}, expected {checkout}.")


def _run(name: str, arguments: list[str], checkout: Path) -> str:
    """What it prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])])}
    done = subprocess.run([sys.executable, *arguments], cwd=checkout, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise InputError(f"{name} of the build {checkout} ended with code {done.returncode}: {last}")
    return done.stdout
