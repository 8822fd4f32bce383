"""Let an agent answer a recording: writes agent.wav, both channels as conversation.wav, and transcript.txt.

python examples/infer_duplex.py model=agent.nemo user=user.wav out=answer [record=talk]
python examples/infer_duplex.py model=agent.nemo replay=talk         exit code 0: the same to the bit; 1: something differs
"""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig

from nemo_duplex.inputs import InputError
from nemo_duplex.scripts.cli import script

_MOST_SECONDS = 3600


@script("infer_duplex")
def main(cfg: DictConfig) -> None:
    """Streams a recording through an agent in chunks, as a live caller would, and writes what the agent says and when."""
    if cfg.replay is not None and any(cfg[key] is not None for key in ("user", "out", "record")):
        raise InputError("replay=... is a recorded session, which has its user audio: give it without user, out and record.")
    if cfg.replay is None and (cfg.user is None or cfg.out is None):
        raise InputError("Not given: user (what the user says), out (folder to write). Add user=... out=..., or replay=...")
    from nemo_duplex.files.atomic import require_new_folder
    from nemo_duplex.inputs import existing_file

    path = existing_file(cfg.model, "model")
    if cfg.replay is None:
        existing_file(cfg.user, "user")
        require_new_folder(cfg.out, "out", replace=cfg.overwrite)
        if cfg.record is not None:
            require_new_folder(cfg.record, "record")
            out, record = Path(cfg.out).resolve(), Path(cfg.record).resolve()
            if out.is_relative_to(record) or record.is_relative_to(out):
                raise InputError(f"record={cfg.record}: expected a folder beside out={cfg.out}, neither inside the other.")
        if not 0 < cfg.chunk <= _MOST_SECONDS:
            raise InputError(f"chunk={cfg.chunk}: expected seconds, more than 0 and up to {_MOST_SECONDS}.")
        if not 0 <= cfg.tail <= _MOST_SECONDS:
            raise InputError(f"tail={cfg.tail}: expected seconds, 0 to {_MOST_SECONDS}.")
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel
    from nemo_duplex.scripts.hardware import require_device, use_threads

    use_threads(cfg.threads)
    device = require_device(cfg.device)
    model = DuplexS2SModel.restore_from(str(path), map_location=device)
    (_answer if cfg.replay is None else _replay)(cfg, model)


def _answer(cfg: DictConfig, model) -> None:
    import time

    import numpy as np
    import soundfile
    import soxr

    from nemo_duplex.files.atomic import whole_folder
    from nemo_duplex.inputs import read_mono

    user = read_mono(cfg.user, model.user_sample_rate, "user")
    heard = np.concatenate([user, np.zeros(round(cfg.tail * model.user_sample_rate), np.float32)])
    session = model.open_session(record=cfg.record, sampling=cfg.sampling, seed=cfg.seed)
    frames, started = [], time.perf_counter()
    chunk = max(1, round(cfg.chunk * model.user_sample_rate))
    for start in range(0, len(heard), chunk):
        frames += session.push(heard[start : start + chunk])
    frames += session.flush()
    seconds = time.perf_counter() - started
    session.close()
    agent, rate = np.concatenate([frame.audio for frame in frames]), model.agent_sample_rate
    left = soxr.resample(heard, model.user_sample_rate, rate)[: len(agent)]
    left = np.pad(left, (0, len(agent) - len(left)))
    with whole_folder(Path(cfg.out), replace=cfg.overwrite) as out:
        soundfile.write(out / "agent.wav", agent, rate)
        soundfile.write(out / "conversation.wav", np.stack([left, agent], axis=1), rate)
        lines = [f"{turn.start:7.2f} {turn.end:7.2f}  {turn.text}" for turn in session.transcript.agent]
        (out / "transcript.txt").write_text("\n".join(lines) + "\n")
    print("\n".join(lines) or "The agent said nothing.")
    length = len(heard) / model.user_sample_rate
    print(f"{cfg.out}: {length:.1f} s of conversation in {seconds:.1f} s (real-time factor {seconds / length:.2f})")


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
