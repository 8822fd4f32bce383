"""Let an agent answer a recording: writes agent.wav, both channels as conversation.wav, and transcript.txt.

python examples/infer_duplex.py model=agent.nemo user=user.wav out=answer [record=talk]
python examples/infer_duplex.py model=agent.nemo replay=talk         exit code 0: the same to the bit; 1: something differs
"""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from nemo_duplex.inputs import InputError
from nemo_duplex.scripts.cli import script


@script("infer_duplex")
def main(cfg: DictConfig) -> None:
    """Streams a recording through an agent in chunks, as a live caller would, and writes what the agent says and when."""
    if cfg.replay is not None and any(cfg[key] is not None for key in ("user", "out", "record")):
        raise InputError("replay=... is a recorded session, which has its user audio: give it without user, out and record.")
    if cfg.replay is None and (cfg.user is None or cfg.out is None):
        raise InputError("Not given: user (what the user says), out (folder to write). Add user=... out=..., or replay=...")
    from nemo_duplex.inputs import existing_file
    from nemo_duplex.streaming.answering import Answering

    path, question = existing_file(cfg.model, "model"), None
    if cfg.replay is None:
        question = Answering(cfg.user, cfg.out, cfg.record, cfg.chunk, cfg.tail, cfg.overwrite)
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel
    from nemo_duplex.scripts.hardware import require_device, use_threads

    use_threads(cfg.threads)
    model = DuplexS2SModel.restore_from(str(path), map_location=require_device(cfg.device))
    if question is None:
        _replay(cfg, model)
    else:
        print(*question.answer(model, cfg.sampling, cfg.seed), sep="\n")


def _replay(cfg: DictConfig, model) -> None:
    from nemo_duplex.streaming.recording.replay import replay
    from nemo_duplex.streaming.recording.replay_drawing import drawing, verdict

    result = replay(cfg.replay, model)
    print(*verdict(result), sep="\n")
    if not result.identical:
        print("", *drawing(result, model), sep="\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
