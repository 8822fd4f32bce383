#!/usr/bin/env bash
# sphn 0.2.1, `OpusStreamReader`: the sound that one `append_bytes` may hold ends at 5 s.
#
# A valid Ogg/Opus stream of 6 s, appended at once, raises "opus_decode_float: invalid argument"; the reader then raises the same
# for whatever follows. The same bytes page by page give all samples. A client that buffered for a while (a tab in the
# background, a queue, a file) sends more than that in one message.
#
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check sphn==0.2.1 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import sphn

print("sphn", version("sphn"))
sound = (0.3 * np.sin(np.arange(6 * 24000) * 0.1)).astype(np.float32)
writer = sphn.OpusStreamWriter(24000)
pages = [writer.append_pcm(sound[start : start + 960]) for start in range(0, len(sound), 960)]
later = writer.append_pcm(sound[:960])


def read(reader, data):
    try:
        return len(reader.append_bytes(data))
    except ValueError as error:
        return str(error)


reader = sphn.OpusStreamReader(24000)
at_once, after = read(reader, b"".join(pages)), read(reader, later)
reader = sphn.OpusStreamReader(24000)
page_by_page = sum(read(reader, page) for page in pages)
four = read(sphn.OpusStreamReader(24000), b"".join(pages[:100]))
print("6 s at once:", at_once, "| the next 40 ms:", after, "| page by page:", page_by_page, "samples | 4 s at once:", four)
same = isinstance(at_once, str) and isinstance(after, str) and page_by_page == len(sound) and four == 96000
print("as found" if same else "CHANGED")
sys.exit(0 if same else 1)
PYTHON
