"""An agent without training whose turns are known: it answers when the user stops, and stops when the user speaks.

    python -m tests.serving.answering 8998 [seconds of an answer]        a real server of it, until it is killed

The model is random and writes nothing by itself; the worker gives it the commands `say` and `stop`, which make real turns on
the channels, with text and sound.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import torch
import uvicorn

from nemo_duplex.serving.agent_turns import AgentTurns
from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.config import ServerConfig
from nemo_duplex.serving.run import uvicorn_config
from tests.dummies import tiny_model

#: What the agent says, and how long its turn is.
ANSWER, ANSWER_FRAMES = "It is one.", 40


def quiet_model(folder: Path, **changes):
    """A random model that writes nothing unless it is told to, and sounds when it does."""
    model = tiny_model(folder, **changes)
    logits_of, pad = model.lm.text_logits, model.layout.text_pad

    def quiet(hidden):
        logits = torch.zeros_like(logits_of(hidden))
        logits[..., pad] = 100.0  # also where a caller asks for a high temperature
        return logits

    model.lm.text_logits = quiet
    return model


def make_answering(app, answer: str = ANSWER, frames: int = ANSWER_FRAMES):
    """Lets the agent of an application answer in every call, and be silent between its turns, as a trained one is."""
    worker = app.state.server.worker
    hand_out, active, stop_at, turns = worker._answer, {}, {}, {}

    def answering(answers, done, step):
        for session, made in answers.items():
            follow = turns.setdefault(session, AgentTurns(worker.layout))
            for frame in made:
                if not follow.add(frame.token).speaking:
                    frame.audio[:] = 0.0
        hand_out(answers, done, step)
        for session, made in answers.items():
            for frame in made:
                before, active[session] = active.get(session, False), frame.user_active
                if session.over:
                    continue
                if (frame.user_active and not before) or frame.index == stop_at.get(session):
                    session.stop()
                elif before and not frame.user_active:
                    session.say(answer)
                    stop_at[session] = frame.index + frames

    worker._answer = answering
    return app


@contextmanager
def serving(app, config: ServerConfig | None = None):
    """Runs an application on a free port of this machine; gives "127.0.0.1:port"."""
    settings = uvicorn_config(app, config or app.state.server.config)
    settings.port, settings.lifespan = 0, "on"
    server = uvicorn.Server(settings)
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive() and time.monotonic() < until, "The server did not start."
        time.sleep(0.01)
    try:
        yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=120)
        assert not thread.is_alive(), "The server did not end."


def main() -> None:
    torch.set_num_threads(1)
    config = ServerConfig(port=int(sys.argv[1]), callers=8)
    frames = round(float(sys.argv[2]) * 12.5) if len(sys.argv) > 2 else ANSWER_FRAMES
    with tempfile.TemporaryDirectory() as folder:
        app = make_answering(make_app(quiet_model(Path(folder)), config), frames=frames)
        asyncio.run(uvicorn.Server(uvicorn_config(app, config)).serve())


if __name__ == "__main__":
    main()
