"""Two configurations and the folder that they are in, for the tests of config.py and cli.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemo_duplex.scripts import config

TRAIN = """\
# Trains a thing.

# Hours of speech to make.
# All sets together.
hours: 1.0
out: ???  # (path) Folder to write, "#" is allowed.
title: "a # b"  # Any text.
# Steps and their rates.
steps:
  # Between validations.
  every: 200
  rate: 0.5  # Of learning.
llm: {}  # Any key of transformers.
source: []  # (paths) Files.
codec: null  # (path) File; null: none.
count: null  # (whole number) How many.
batch: 8  # (positive whole number) Rows.
seed: 0  # (whole number from 0) Of all.
dropout: 0.1  # (share) What is left out.
rate: null  # (positive number) Of learning; null: none.
ages: [1.5]  # (positive numbers) In years.
sets: [dev]  # Which.
pairs: [1.5]  # Numbers.
lora: null  # (keys) Any key of peft.
flag: true  # Yes or no.
limit: null  # Of anything.
part: 3  # (whole number or share) Of the files; null: all.
devices: 1  # (any type) So many, or which.
net:  # Its layers; null: none.
  width: 8
loader:  # (keys) Of a library.
  size: 3
most: 3  # Files that are read; null: all.
twice: ${hours}  # As many.
"""
DERIVED = "defaults: [train, _self_]\nhours: 2.0\nllm:\n  hidden_size: 64\n"


@pytest.fixture
def conf(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "conf"
    folder.mkdir()
    (folder / "train.yaml").write_text(TRAIN)
    (folder / "tiny.yaml").write_text(DERIVED)
    monkeypatch.setattr(config, "conf_folder", lambda: folder)
    return folder
