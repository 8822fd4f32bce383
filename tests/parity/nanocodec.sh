#!/usr/bin/env bash
# FSQCodec beside an outside port of NanoCodec, nanocodec-torch 1.0.0: the same codes, the same audio.
#
# Both get the same random weights in the published geometry of nvidia/nemo-nano-codec-22khz-0.6kbps-12.5fps (30.3 and 31.5
# million), of which the biases are drawn too (they are zero when built, and would hide an error). The port is unpacked into a
# temporary folder, so the environment stays as it is.
#
#   bash tests/parity/nanocodec.sh [PYTHON]        PYTHON: of an environment with nemo_duplex; else .venv/bin/python
#
# Exits with 1 if a code differs, or audio by more than 1e-4.
set -euo pipefail
python=${1:-.venv/bin/python}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m pip install -q --disable-pip-version-check --no-deps --target "$folder" nanocodec-torch==1.0.0
PYTHONPATH="$folder${PYTHONPATH:+:$PYTHONPATH}" "$python" - <<'PYTHON' 2> "$folder/log" || { grep -v Warning "$folder/log" | tail -3 >&2; exit 1; }
import sys
from importlib.metadata import version

import torch
from nanocodec_torch import AudioCodecModel
from nanocodec_torch.utils import weight_loader_v2 as loader

from nemo_duplex import FSQCodec
from nemo_duplex.benchmark.measured_models import nanocodec_config

torch.manual_seed(0)
ours = FSQCodec(nanocodec_config("paper"))
networks = (ours.model.audio_encoder, ours.model.audio_decoder)
with torch.no_grad():
    for network in networks:
        for name, weight in network.named_parameters():
            if name.endswith("bias"):
                weight.normal_(std=0.05)
            elif name.endswith("alpha"):
                weight.uniform_(0.5, 2)
    samples = 12 * ours.samples_per_frame
    audio = 0.3 * torch.randn(2, samples) * torch.linspace(0, 1, samples)
    lens = torch.tensor([samples, samples])
    last = networks[0].post_conv.conv  # random weights give all frames one code; these give almost every frame its own
    last.parametrizations.weight.original0.mul_(1.5 / networks[0](audio=audio, audio_len=lens)[0].std(dim=-1).mean())
    last.bias.sub_(networks[0](audio=audio, audio_len=lens)[0].mean(dim=(0, 2)))

theirs = AudioCodecModel().eval()
weights = {name: weight.numpy() for name, weight in ours.model.state_dict().items()}
loader.load_encoder_weights(theirs, weights)
loader.load_decoder_weights(theirs, weights)

with torch.no_grad():
    codes, frames = ours.encode(audio, lens)
    tokens, tokens_len = theirs.encode(audio, lens)
    decoded, _ = ours.decode(codes, frames)
    sound, _ = theirs.decode(codes.int(), frames)
    stream = ours.streaming_decoder()
    state, pieces = stream.init_state(2), []
    for frame in codes.split(1, dim=2):
        piece, state = stream.step(frame, state)
        pieces.append(piece)
sound = sound[:, 0]
parts = [sum(p.numel() for p in network.parameters()) / 1e6 for network in (theirs.audio_encoder, theirs.audio_decoder)]
other = int((codes != tokens).sum())
whole, streamed = ((x - sound).abs().max().item() for x in (decoded, torch.cat(pieces, dim=1)))
print(f"nanocodec-torch {version('nanocodec-torch')}, {parts[0]:.1f} and {parts[1]:.1f} million weights")
print(f"codes: {codes.numel()}, of which {len(codes.unique())} differ from each other; other than ours: {other}")
print(f"audio: rms {sound.std():.3f}; largest difference {whole:.1e} whole, {streamed:.1e} streamed frame by frame")
sys.exit(0 if not other and len(codes.unique()) > 40 and sound.std() > 0.01 and max(whole, streamed) <= 1e-4 else 1)
PYTHON
