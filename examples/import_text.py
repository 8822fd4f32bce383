"""Import dialogues of people into one JSONL file, in the words that are spoken.

python examples/import_text.py out=chats source=[ultrachat/]
python examples/import_text.py out=chats source=[train.parquet] text.max_words=30 text.keep_greetings=false
python examples/import_text.py out=questions source=[qa.jsonl] text.recordings=[manifest.json]
"""

from __future__ import annotations

import shutil
from pathlib import Path

from omegaconf import DictConfig

from nemo_duplex.scripts.cli import script


@script("import_text")
def main(cfg: DictConfig) -> None:
    """Reads people's dialogues into one JSONL file, in the words that are spoken, and counts what is left out."""
    from nemo_duplex.files.atomic import remove_abandoned, require_writable, whole_file
    from nemo_duplex.inputs import plain
    from nemo_duplex.synthesis.text.dialogue_files import DialogueFiles
    from nemo_duplex.synthesis.text.text_spec import TextSpec

    out = Path(cfg.out)
    require_writable(out, "out", ["dialogues.jsonl", "left_out.txt"])
    remove_abandoned(out)
    text = plain(cfg.text)
    store = text.pop("store")
    spec = TextSpec.of(text, max_odd_rows=cfg.max_odd_rows, language=cfg.language)
    source = DialogueFiles(cfg.source, spec, store=store)
    with whole_file(out / "dialogues.jsonl") as path:
        shutil.copyfile(source.dialogues, path)
    with whole_file(out / "left_out.txt") as path:
        path.write_text("\n".join(source.summary()) + "\n", encoding="utf-8")
    print("\n".join(source.summary()))
    print(f"written: {out / 'dialogues.jsonl'}")


if __name__ == "__main__":
    main()
