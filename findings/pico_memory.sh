#!/usr/bin/env bash
# py-nanotts 0.1.1 (SVOX Pico): the same text is not the same samples every time.
#
# `NanoTTS().speak(text)` gives Pico memory that is not cleared. From the third call on it is memory that was used before, and
# the samples are others than those of the first two calls. One thread, one voice, a plain sentence.
#
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check py-nanotts==0.1.1
"$folder/venv/bin/python" - <<'PYTHON'
import hashlib
import sys
from importlib.metadata import version

from py_nanotts import NanoTTS

text = "The capital of France is Paris, and I like it."
said = [hashlib.sha256(NanoTTS().speak(text, voice="en-US")).hexdigest()[:8] for _ in range(4)]
print("py-nanotts", version("py-nanotts"), "four times the same text:", *said)
as_found = len(set(said)) > 1
print("as found" if as_found else "CHANGED")
sys.exit(0 if as_found else 1)
PYTHON
