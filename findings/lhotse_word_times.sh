#!/usr/bin/env bash
# Lhotse moves a supervision when it cuts, pads or joins audio, and leaves the word times in its `alignment` where they were.
#
# A word is said at 5.0 to 5.5 s of a recording. In the cut that begins at 4 s it is heard at 1.0 s: the supervision says so,
# its alignment still says 5.0 s. Exit code 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q lhotse==1.33.0 torch==2.13.0 numpy urllib3
"$folder/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

from lhotse import MonoCut, SupervisionSegment
from lhotse.supervision import AlignmentItem
from lhotse.testing.dummies import dummy_recording

alignment = {"word": [AlignmentItem("day", 5.0, 0.5)]}
supervision = SupervisionSegment("s", "r", start=5.0, duration=0.5, text="day", alignment=alignment)
whole = MonoCut("c", 0.0, 10.0, 0, recording=dummy_recording(0, duration=10.0), supervisions=[supervision])
cuts = {
    "truncate(offset=4.0)": whole.truncate(offset=4.0),
    "cut_into_windows(4.0)[1]": list(whole.cut_into_windows(4.0))[1],
    "pad(12.0, left)": whole.pad(12.0, direction="left"),
    "append, the second": whole.append(whole.with_id("d")),
}
print(f"lhotse {version('lhotse')}: the word is said at 5.0 s of the recording, where its supervision begins")
same = True
for name, cut in cuts.items():
    moved = cut.supervisions[-1]
    word = moved.alignment["word"][0]
    print(f"{name:26} supervision at {moved.start:5.1f} s, its word at {word.start:5.1f} s")
    same = same and moved.start != 5.0 and word.start == 5.0
sys.exit(0 if same else 1)
PY
