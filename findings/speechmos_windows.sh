#!/usr/bin/env bash
# speechmos 0.0.1.1 (Microsoft's package of DNSMOS): most of a recording of 16 to 33 s is not rated.
#
# `dnsmos.run` rates windows of 9.01 s, one a second. Where a window ends is computed in floating point, int((i + 9.01) * 16000), which
# is one sample short for i = 7 to 23, and a window that is short is skipped without a word. So what comes after 15.01 s does not
# count until a recording has over 33 s: 30 s whose second half is noise have, to the last digit, the scores of the first half.
#
# Its requirements (librosa, requests, onnxruntime) are not declared. Exits with 1 if one of these changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check speechmos==0.0.1.1 librosa==0.11.0 onnxruntime==1.23.2 numpy==2.3.5 requests
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import requires, version

import numpy as np
from speechmos import dnsmos

print("speechmos", version("speechmos"), "requires", requires("speechmos"))
rate, rng = 16000, np.random.default_rng(0)
seconds = np.arange(30 * rate) / rate
tone = sum(np.sin(2 * np.pi * 150 * k * seconds) / k for k in range(1, 12))
voice = (0.1 * tone * np.abs(np.sin(2 * np.pi * 2 * seconds))).astype(np.float32)  # harmonics in syllables
noisy = voice.copy()
noisy[16 * rate :] = 0.5 * rng.uniform(-1, 1, 14 * rate)
scores = {}
for name, sound in (("16 s", voice[: 16 * rate]), ("30 s", voice), ("30 s, the last 14 noise", noisy), ("the last 14 s", noisy[16 * rate :])):
    scores[name] = [round(float(dnsmos.run(sound, rate)[part]), 6) for part in ("sig_mos", "bak_mos", "ovrl_mos")]
    print(f"{name:24} sig, bak, ovrl: {scores[name]}")
same = scores["16 s"] == scores["30 s"] == scores["30 s, the last 14 noise"]
rated = [i for i in range(40) if int((i + 9.01) * rate) - i * rate == int(9.01 * rate)]
print("starts of windows that are whole, in seconds:", rated)
sys.exit(not (same and scores["the last 14 s"] != scores["16 s"] and rated == [*range(7), *range(24, 40)] and requires("speechmos") is None))
PYTHON
