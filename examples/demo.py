"""From nothing to a duplex agent, by the other scripts: corpus, (encoder and codec,) codes, training, evaluation.

python examples/demo.py [minutes=20] [from_scratch=true] [voices=espeak] [out=demo]
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from nemo_duplex.files.atomic import require_space, require_writable, whole_file
from nemo_duplex.inputs import InputError, NotInstalled, existing_file
from nemo_duplex.scripts.cli import script
from nemo_duplex.scripts.demo import VOICES, Demo, DemoVoices
from nemo_duplex.scripts.workflow import Workflow

NEXT = """
  {out}/agent.nemo         the agent, one self-contained file
  {out}/report.html        open it in a browser: the numbers beside the paper's, conversations to see and to hear
  {out}/report.json        the same numbers for programs
  {out}/conversation.wav   a conversation, the user left, the agent right

What next:
  talk to it      python examples/infer_duplex.py model={out}/agent.nemo user=question.wav out=answer
  train longer    make demo MINUTES=60
  own dialogues   python examples/synthesize.py out=corpus hours=10 source=[dialogues.jsonl]
  own model       python examples/train_duplex.py --help      any encoder, codec and language model"""


@script("demo")
def main(cfg: DictConfig) -> None:
    """Speaks a small corpus, trains a tiny duplex agent on it, lets it talk, and measures how it does. Interrupted and started
    again it resumes; after a change it repeats what depends on it."""
    out = Path(cfg.out)
    voices = demo_voices(cfg.voices)
    encoder, codec = existing_file(cfg.encoder or voices.encoder, "encoder"), existing_file(cfg.codec or voices.codec, "codec")
    voices = replace(voices, encoder=encoder, codec=codec)
    require_writable(out, "out", ["agent.nemo"])
    demo = Demo(out, Path(__file__).parent, voices, cfg.minutes, cfg.from_scratch, cfg.seed)
    require_space(out, 3_000_000_000)
    done = Workflow(out, demo.plan()).run()
    with whole_file(out / "agent.nemo") as part:
        shutil.copyfile(out / "train" / "agent.nemo", part)

    if not done[-1].now:  # otherwise it has just been said
        from nemo_duplex.evaluation.report.tables import table

        print("\n" + table(json.loads((out / "report.json").read_text())))
    each = ", ".join(f"{step.name} {step.seconds / 60:.1f}" for step in done)
    print(f"\n{sum(step.seconds for step in done) / 60:.1f} minutes of work: {each}\n{NEXT.format(out=out)}")


def demo_voices(name: str | None) -> DemoVoices:
    """The voices of this name; without one hibari's, where it is installed. Says which."""
    if name is not None and name not in VOICES:
        raise InputError(f"voices={name}: expected one of {', '.join(VOICES)}.")
    from nemo_duplex.synthesis.tts.engines import engine_voices

    try:
        engine_voices(VOICES[name or "hibari"].agent)
    except NotInstalled as error:
        if name is not None:
            raise
        print(f"voices=espeak, for hibari is not installed: {error}")
        name = "espeak"
    chosen = VOICES[name or "hibari"]
    print(f"voices={name or 'hibari'}: the agent speaks with {chosen.agent}, users with {chosen.users}")
    return chosen


if __name__ == "__main__":
    main()
