"""Let an agent answer a recording: user.wav in, agent.wav, both channels in conversation.wav and a transcript out.

python examples/infer_duplex.py model=agent.nemo user=user.wav out=answer
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from nemo_duplex.cli import script


@script("infer_duplex")
def main(cfg: DictConfig) -> None:
    """Streams a recording through an agent in chunks, as a live caller would, and writes what the agent says and when."""
    import time

    import numpy as np
    import soundfile
    import soxr
    import torch

    from nemo_duplex.inputs import existing_file, read_mono
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel
    from nemo_duplex.outputs import whole_folder

    torch.set_num_threads(cfg.threads)
    model = DuplexS2SModel.restore_from(str(existing_file(cfg.model, "model")), map_location=cfg.device)
    user = read_mono(cfg.user, model.user_sample_rate, "user")
    tail = np.zeros(round(cfg.tail * model.user_sample_rate), np.float32)
    heard = np.concatenate([user, tail])

    session, frames, started = model.open_session(), [], time.perf_counter()
    chunk = max(1, round(cfg.chunk * model.user_sample_rate))
    for start in range(0, len(heard), chunk):
        frames += session.push(heard[start : start + chunk])
    frames += session.flush()
    seconds = time.perf_counter() - started
    agent = np.concatenate([frame.audio for frame in frames])

    rate = model.agent_sample_rate
    left = np.zeros_like(agent)
    resampled = soxr.resample(heard, model.user_sample_rate, rate)[: len(left)]
    left[: len(resampled)] = resampled
    with whole_folder(Path(cfg.out), replace=cfg.overwrite) as out:
        soundfile.write(out / "agent.wav", agent, rate)
        soundfile.write(out / "conversation.wav", np.stack([left, agent], axis=1), rate)
        lines = [f"{turn.start:7.2f} {turn.end:7.2f}  {turn.text}" for turn in session.transcript.agent]
        (out / "transcript.txt").write_text("\n".join(lines) + "\n")
    print("\n".join(lines) or "The agent said nothing.")
    length = len(heard) / model.user_sample_rate
    print(f"{cfg.out}: {length:.1f} s of conversation in {seconds:.1f} s (real-time factor {seconds / length:.2f})")


if __name__ == "__main__":
    main()
