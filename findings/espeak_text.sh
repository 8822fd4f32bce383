#!/usr/bin/env bash
# eSpeak NG 1.52 (espeakng-loader 0.2.4): three written forms that it says as something else, without a word about it.
#
# 1. "café" whose accent is a character of its own (NFD, as macOS writes names) is one syllable, "kafe"; composed (NFC) it is
#    right. Unicode calls both the same text.
# 2. A minus between blanks is silent, and so are < and >: "5 - 6", "5 < 6" and "5 > 6" all sound like "5 6".
#    "-5", U+2212 and the signs of "at most" and "not equal" are said.
# 3. A full-width letter (U+FF28, usual in Chinese and Japanese text) is its code: "letter f f 2 8".
#
# Exits with 1 if one of them changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check espeakng-loader==0.2.4
"$folder/venv/bin/python" - <<'PYTHON'
import ctypes
import os
import sys
import unicodedata

import espeakng_loader

espeak = ctypes.CDLL(espeakng_loader.get_library_path())
espeak.espeak_Initialize(2, 200, os.fsencode(espeakng_loader.get_data_path()), 0x8000)
espeak.espeak_Info.restype = espeak.espeak_TextToPhonemes.restype = ctypes.c_char_p
espeak.espeak_SetVoiceByName(b"en-us")
print("eSpeak NG", espeak.espeak_Info(None).decode().split()[0])


def sounds(text: str) -> str:
    """What it says of a text, in the phonetic alphabet."""
    buffer = ctypes.create_string_buffer(text.encode() + b"\0")
    place, said = ctypes.c_void_p(ctypes.addressof(buffer)), []
    while place.value:
        said.append(espeak.espeak_TextToPhonemes(ctypes.byref(place), 1, 2).decode())
    print(f"{ascii(text):20} {' '.join(said)}")
    return " ".join(said)


composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
seen = [
    sounds(composed) != sounds(apart),
    len({sounds(text) for text in ("5 6", "5 - 6", "5 < 6", "5 > 6")}) == 1,
    sounds("5 − 6") != sounds("5 6") and sounds("5 ≤ 6") != sounds("5 6"),
    sounds("Ｈ") != sounds("H"),
]
print("as found" if all(seen) else f"CHANGED: {seen}")
sys.exit(0 if all(seen) else 1)
PYTHON
