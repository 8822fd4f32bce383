#!/usr/bin/env bash
# aiortc 1.16.0: two things that happen to the audio of a call.
#
# 1. A mono frame is sent 3 dB quieter than it was given (its samples times 0.71); a stereo frame keeps its level.
# 2. The jitter buffer of a receiver hands a packet out when four later ones are there (80 ms). After one lost packet it hands
#    each out 14 packets late (280 ms), for the rest of the call: the delay never shrinks again.
#
# Exits with 1 if one of them changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check aiortc==1.16.0 av==18.1.0 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import fractions
import sys
from importlib.metadata import version

import av
import numpy as np
from aiortc.codecs.opus import OpusDecoder, OpusEncoder
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.rtp import RtpPacket

print("aiortc", version("aiortc"), "PyAV", version("av"))


def level(layout: str) -> float:
    """Of a tone at the other end, relative to what was given."""
    encoder, decoder, heard = OpusEncoder(), OpusDecoder(), []
    tone = np.rint(10000 * np.sin(np.arange(48000) * 0.05)).astype(np.int16)
    for start in range(0, len(tone), 960):
        part = np.repeat(tone[start : start + 960], 2 if layout == "stereo" else 1)
        frame = av.AudioFrame.from_ndarray(part[None], format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, fractions.Fraction(1, 48000)
        payloads, _ = encoder.encode(frame)
        for payload in payloads:
            heard += [decoded.to_ndarray()[0] for decoded in decoder.decode(JitterFrame(payload, start))]
    return float(np.concatenate(heard)[9600:].std() / tone.std())


def late(lost: int | None) -> int:
    """Packets between the one that came last and the one that was handed out last, of 100."""
    buffer, handed = JitterBuffer(capacity=16, prefetch=4), 0
    for number in range(100):
        if number == lost:
            continue
        packet = RtpPacket(sequence_number=number, timestamp=960 * number)
        packet._data = b"opus"
        _, frame = buffer.add(packet)
        handed = frame.timestamp // 960 if frame else handed
    return 99 - handed


mono, stereo = level("mono"), level("stereo")
whole, after_loss = late(None), late(20)
print(f"level: mono {mono:.2f}, stereo {stereo:.2f}; packets late: {whole}, and 79 packets after a lost one {after_loss}")
as_found = 0.65 < mono < 0.76 and 0.95 < stereo < 1.05 and (whole, after_loss) == (4, 14)
print("as found" if as_found else "CHANGED")
sys.exit(0 if as_found else 1)
PYTHON
