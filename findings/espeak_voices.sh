#!/usr/bin/env bash
# eSpeak NG 1.52 (espeakng-loader 0.2.4): what it does, without an error, with a voice or a text that it does not have.
#   1. A language whose dictionary is missing from the wheel (Faroese): the voice is set without an error, and nothing is spoken.
#   2. Japanese: kana are read, but in a word with a kanji they are spelled in English ("Chinese letter").
# Exits with 1 if one of these changes.
set -e
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q espeakng-loader==0.2.4
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import pathlib, subprocess, sys

import espeakng_loader

folder = pathlib.Path(sys.argv[1])
script = folder / "one.py"
script.write_text(
    """
import ctypes, sys, espeakng_loader
library = ctypes.CDLL(espeakng_loader.get_library_path())
library.espeak_Info.restype = library.espeak_TextToPhonemes.restype = ctypes.c_char_p
data = espeakng_loader.get_data_path()
assert library.espeak_Initialize(2, 200, data.encode(), 0x8000) == 22050
for voice, text in zip(sys.argv[1::2], sys.argv[2::2]):
    failed = library.espeak_SetVoiceByName(voice.encode())
    rest = ctypes.c_void_p(ctypes.addressof(buffer := ctypes.create_string_buffer(text.encode())))
    said = (library.espeak_TextToPhonemes(ctypes.byref(rest), 1, 2) or b"").decode()
    print("no such voice" if failed else said)
"""
)

def said(*voices_and_texts):
    command = [sys.executable, str(script), *voices_and_texts]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]

source = pathlib.Path(espeakng_loader.get_data_path())
faroese = said("fo", "Hvussu gongur?")
print("1. Faroese: dictionary there", (source / "fo_dict").exists(), "| phonemes:", faroese)
kana, mixed = said("ja", "ですか", "ja", "元気ですか")
print("2. ですか:", kana, "| 元気ですか:", mixed)
as_seen = not (source / "fo_dict").exists() and faroese == [""]
as_seen = as_seen and "(en)" not in kana and mixed.count("(en)") >= 3
sys.exit(0 if as_seen else 1)
PYTHON
