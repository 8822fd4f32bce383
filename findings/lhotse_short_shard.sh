#!/usr/bin/env bash
# Lhotse reads a Shar shard up to the end of its shortest file: of 4 cuts whose codes file holds 2, it gives 2, without a word.
#
# So a field that was written in part (a full disk, a copy that broke off between two files of a tar) takes conversations out of
# a training. Exit code 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q lhotse==1.33.0 torch==2.13.0 numpy urllib3 soundfile
"$folder/venv/bin/python" - "$folder" <<'PY'
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from lhotse import CutSet
from lhotse.shar import ArrayTarWriter
from lhotse.testing.dummies import dummy_cut, dummy_recording

shar = Path(sys.argv[1]) / "shar"
shar.mkdir()
cuts = [dummy_cut(i, recording=dummy_recording(i, with_data=True)).drop_features() for i in range(4)]
CutSet.from_cuts(cuts).to_shar(shar, fields={"recording": "wav"}, shard_size=4)
with ArrayTarWriter(str(shar / "codes.000000.tar"), shard_size=None, compression="numpy") as writer:
    for cut in cuts[:2]:
        codes = np.zeros((10, 4), np.int16)
        manifest = cut.attach_tensor("codes", codes, frame_shift=0.08, temporal_dim=0).codes
        writer.write(cut.id, codes, manifest)
found = [cut.id for cut in CutSet.from_shar(in_dir=shar)]
print(f"lhotse {version('lhotse')}: 4 cuts and recordings, codes of the first 2; read without an error: {len(found)} cuts, {found}")
sys.exit(0 if len(found) == 2 else 1)
PY
