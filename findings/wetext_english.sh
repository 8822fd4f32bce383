#!/usr/bin/env bash
# wetext 0.1.8 (the runtime of WeTextProcessing): what its English normaliser makes of ordinary sentences.
#
# 1. A full stop after a Roman numeral is lost: "World War II." ends without one.
# 2. Quotation marks come back with a backslash before each.
# 3. "the 1990s" are seconds, "100m" are minutes, and a telephone number is a range: "555-1234" is "... to one thousand ...".
# 4. "$5.20" is "five point two dollars", "€1,000.50" lacks its "one": "thousand point five euros".
# 5. "1000 BC" is "ten hundred BC".
#
# The same call says "7:30 p.m." as one would. Exits with 1 if one of these changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check wetext==0.1.8 kaldifst==1.8.3
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

from wetext import Normalizer

print("wetext", version("wetext"))
normalizer = Normalizer(lang="en", operator="tn")
SEEN = {
    "It was World War II.": "It was World War two",
    'She said "yes".': 'She said \\"yes\\".',
    "In the 1990s.": "In the one thousand nine hundred and ninety seconds.",
    "He ran 100m.": "He ran one hundred minutes.",
    "Call 555-1234.": "Call five hundred and fifty five to one thousand two hundred and thirty four.",
    "It costs $5.20.": "It costs five point two dollars.",
    "It costs €1,000.50.": "It costs thousand point five euros.",
    "In 1000 BC.": "In ten hundred BC.",
    "At 7:30 p.m. we ate.": "At seven thirty PM we ate.",
}
changed = False
for text, seen in SEEN.items():
    found = normalizer.normalize(text)
    print(f"{text:24} {found}")
    changed |= found != seen
sys.exit(changed)
PYTHON
