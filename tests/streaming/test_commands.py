"""What a caller makes the agent do is what it might have done itself: on its channels, in its sound, and afterwards."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.channels.targets import lay_out
from nemo_duplex.inputs import InputError
from nemo_duplex.streaming.commands import COMMANDS, FREE, GAIN_FADE, AgentCommands, FrameCommand, RowCommands
from tests.dummies import speech_like, tiny_model

SILENCE, CODE = 0, 7
LAYOUTS = [
    ChannelLayout(50, text_pad=0, text_bos=1, text_eos=2, num_codebooks=2, codebook_size=20, speech_delay=d, turn_marks=marks)
    for marks, delays in (("beside", (0, 1, 3)), ("in_place", (0, 1, 2)))
    for d in delays
]
layouts = pytest.mark.parametrize("layout", LAYOUTS, ids=[f"{x.turn_marks} {x.speech_delay}" for x in LAYOUTS])
BESIDE = LAYOUTS[1]


class ScriptedAgent:
    """Writes and says what its script says, but for what it is made to do.

    Args:
        turns: text BOS and EOS frames of what it would do by itself.
    """

    def __init__(self, layout: ChannelLayout, turns=(), words_in_time: bool = False) -> None:
        self.layout, self.commands = layout, AgentCommands(layout, words_in_time)
        self.turns = turns
        self.tokens, self.codes, self.commanded = [], [], []

    def step(self, prefers=()) -> FrameCommand:
        """One frame; offered tokens are written if they are in `prefers`."""
        layout, frame = self.layout, len(self.tokens)
        command = self.commands.next() or FrameCommand()
        token, code = self._free(frame)
        if command.offer != FREE:
            token = command.offer if command.offer in prefers else layout.text_pad
        token = token if command.token == FREE else command.token
        code = SILENCE if command.silent else code if command.code == FREE else command.code
        self.commands.advance(token, np.full(layout.num_codebooks, code))
        self.tokens.append(token)
        self.codes.append(code)
        self.commanded.append(command)
        return command

    def run(self, frames: int):
        for _ in range(frames):
            self.step()
        return self

    def _free(self, frame: int) -> tuple[int, int]:
        layout, token = self.layout, self.layout.text_pad
        code = layout.speech_pad if layout.turn_marks == "beside" else SILENCE
        for bos, eos in self.turns:
            token = {bos: layout.text_bos, eos: layout.text_eos}.get(frame, 5 if bos < frame < bos + 3 else token)
            opens, closes = bos + layout.speech_delay, eos + layout.text_tail
            if opens <= frame <= closes:
                code = {opens: layout.speech_bos, closes: layout.speech_eos}.get(frame, CODE)
        return token, code


def laid_out(layout: ChannelLayout, bos: int, eos: int, quiet_from: int, frames: int) -> tuple[list[int], list[int]]:
    """Text and speech channel of a turn with text BOS and EOS in these frames, as training lays them out; it says nothing
    any more from `quiet_from` on."""
    tokens, codes = torch.zeros(1, frames + 9, dtype=torch.long), torch.full((1, 2, frames + 9), SILENCE)
    tokens[0, bos + layout.text_shift], tokens[0, eos + layout.text_shift] = layout.text_bos, layout.text_eos
    words = tokens[0, bos + 1 + layout.text_shift : min(bos + 3, eos) + layout.text_shift]
    words.fill_(5)
    codes[:, :, bos + layout.text_shift : quiet_from - layout.speech_lag] = CODE
    targets = lay_out(tokens, codes, torch.ones_like(tokens, dtype=torch.bool), layout)
    return targets.tokens[0, :frames].tolist(), targets.codes[0, 0, :frames].tolist()


# ---------------------------------------------------------------------- stop


@layouts
@pytest.mark.parametrize("frame", range(5, 21))
def test_a_turn_that_is_stopped_lies_as_one_that_was_cut_off_in_training(layout, frame):
    """BOS in frame 4, EOS would come in frame 16: stopped in its lead, in the middle, and while the last of it is heard."""
    agent = ScriptedAgent(layout, [(4, 16)]).run(frame)
    agent.turns = [(4, 16)] if frame > 16 else []  # what comes after the stop is its own: nothing
    agent.commands.stop()
    agent.run(30 - frame)
    heard_until = 16 + layout.text_tail
    eos = min(frame, 16)
    assert (agent.tokens, agent.codes) == laid_out(layout, 4, eos, min(frame, heard_until + 1), 30)
    cut = agent.commanded[frame]
    if frame <= heard_until:
        assert (cut.gain_before, cut.gain, cut.restart) == (1.0, 0.0, True)
        assert agent.commanded[frame + 1].gain_before == 0.0 and agent.commanded[frame + 1].gain == 1.0
    else:
        assert cut == FrameCommand(), "There is nothing to stop."


def test_sound_without_a_turn_is_stopped_too():
    agent = ScriptedAgent(BESIDE).run(3)
    agent._free = lambda frame: (BESIDE.text_pad, CODE if frame < 5 else BESIDE.speech_pad)
    agent.run(2)
    agent.commands.stop()
    command = agent.step()
    assert agent.codes[3:] == [CODE, CODE, BESIDE.speech_eos] and command.gain == 0 and command.restart


def test_a_stop_forgets_what_was_to_be_said_and_what_comes_after_it_counts():
    agent = ScriptedAgent(BESIDE)
    agent.commands.say([5, 6, 7, 8])
    agent.commands.say([9])
    agent.run(3)
    agent.commands.start()
    agent.commands.stop()
    agent.commands.say([11])
    agent.run(4)
    assert agent.tokens == [1, 5, 6, 2, 1, 11, 0]


# ---------------------------------------------------------------------- start and say


@layouts
def test_start_opens_a_turn_in_the_next_frame_unless_there_is_one(layout):
    agent = ScriptedAgent(layout).run(2)
    agent.commands.start()
    agent.run(1)
    agent.commands.start()  # it is in a turn
    agent.run(6)
    assert agent.tokens == [0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert [i for i, code in enumerate(agent.codes) if code == layout.speech_bos] == [2 + layout.speech_delay]


def test_a_start_while_it_says_something_is_not_kept_for_later():
    agent = ScriptedAgent(BESIDE)
    agent.commands.say([5, 6])
    agent.run(2)
    agent.commands.start()
    agent.run(1)
    for _ in range(60):
        agent.step(prefers=[BESIDE.text_eos])
    assert agent.tokens.count(BESIDE.text_bos) == 1


@layouts
def test_what_is_said_is_written_word_for_word_and_ends_when_the_model_would_end_it(layout):
    agent = ScriptedAgent(layout).run(1)
    agent.commands.say([5, 6, 7])
    agent.run(8)
    agent.step(prefers=[layout.text_eos])
    agent.run(5)
    assert agent.tokens == [0, 1, 5, 6, 7, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0]
    assert agent.codes.index(layout.speech_bos) == 1 + layout.speech_delay


def test_what_is_said_ends_at_last_even_if_the_model_would_not():
    agent = ScriptedAgent(BESIDE)
    agent.commands.say([5, 6, 7])
    agent.run(200)
    assert 30 < agent.tokens.index(BESIDE.text_eos) < 100


def test_a_model_that_writes_words_when_they_are_spoken_chooses_when():
    agent = ScriptedAgent(BESIDE, words_in_time=True)
    agent.commands.say([5, 6])
    for prefers in ([], [], [5], [], [6], [], [5], [2], []):
        agent.step(prefers)
    assert agent.tokens == [1, 0, 5, 0, 6, 0, 0, 2, 0]
    agent.commands.say([5])
    agent.run(40)
    assert agent.tokens[9:].index(5) < 20, "It waits about a second at most."


def test_lines_are_said_one_after_the_other():
    agent = ScriptedAgent(BESIDE)
    agent.commands.say([5, 6])
    agent.commands.say([7])
    for _ in range(9):
        agent.step(prefers=[BESIDE.text_eos])
    assert agent.tokens == [1, 5, 6, 2, 1, 7, 2, 0, 0]
    bos, eos = BESIDE.speech_bos, BESIDE.speech_eos
    assert agent.codes[1] == bos and agent.codes[5] == bos and eos not in agent.codes[:5]


@layouts
def test_what_it_is_told_to_say_breaks_off_its_own_turn(layout):
    agent = ScriptedAgent(layout, [(2, 30)]).run(8)
    agent.turns = []
    agent.commands.say([8, 9])
    agent.run(12)
    assert agent.tokens[7:12] == [0, 2, 1, 8, 9]
    cut = agent.commanded[8]
    assert (cut.gain, cut.restart) == (0.0, True) and agent.commanded[9].gain == 1.0
    opens = 9 + layout.speech_delay
    assert agent.codes[opens] == layout.speech_bos
    assert set(agent.codes[8:opens]) <= {SILENCE, layout.speech_eos}, "What it was saying is over."


def test_what_cannot_be_said_is_refused():
    commands = AgentCommands(BESIDE)
    with pytest.raises(InputError, match="nothing to say"):
        commands.say([])
    for mark in (BESIDE.text_pad, BESIDE.text_bos, BESIDE.text_eos):
        with pytest.raises(InputError, match="a mark of the text channel"):
            commands.say([5, mark])
    assert commands.next() is None


# ---------------------------------------------------------------------- mute


def test_mute_changes_nothing_but_the_sound():
    agent = ScriptedAgent(BESIDE, [(1, 9)]).run(4)
    agent.commands.mute(True)
    agent.run(3)
    agent.commands.mute(False)
    agent.run(5)
    free = ScriptedAgent(BESIDE, [(1, 9)]).run(12)
    assert agent.tokens == free.tokens and agent.codes == free.codes
    assert [(c.gain_before, c.gain) for c in agent.commanded[3:9]] == [(1, 1), (1, 0), (0, 0), (0, 0), (0, 1), (1, 1)]
    assert agent.commands.next() is None, "An agent that is free again costs nothing."


def test_a_stop_of_a_muted_agent_does_not_make_it_heard():
    agent = ScriptedAgent(BESIDE, [(1, 30)]).run(4)
    agent.commands.mute(True)
    agent.run(2)
    agent.commands.stop()
    agent.run(3)
    assert {c.gain for c in agent.commanded[4:]} == {0.0}


def test_gains_fade_within_20_ms_and_leave_what_is_free_bit_for_bit():
    rows = [None, FrameCommand(gain=0.0), FrameCommand(gain=0.0, gain_before=0.0), FrameCommand(gain_before=0.0)]
    commands = RowCommands.of(rows, torch.tensor([SILENCE, SILENCE]))
    audio = torch.ones(4, 1764)
    heard, fade = commands.sound(audio, 22050), 441  # 20 ms
    assert torch.equal(heard[0], audio[0]) and not heard[2].any()
    assert not heard[1, fade - 1 :].any() and heard[1, fade - 2] > 0 and torch.equal(heard[3, fade:], audio[3, fade:])
    assert heard.diff(dim=1).abs().max() < 0.004 and heard[1, 0] > 0.99 and heard[3, 0] < 0.01


def test_rows_write_and_say_what_is_commanded():
    pad, logits = 2, torch.zeros(5, 9)
    logits[2, 3], logits[3, 3] = 1.0, -1.0  # the model prefers the offer to pad, then pad to it, then neither
    frames = [None, FrameCommand(token=0), *[FrameCommand(offer=3)] * 3]
    commands = RowCommands.of(frames, torch.tensor([0, 4]))
    assert commands.text(torch.full((5,), 7), logits, pad).tolist() == [7, 0, 3, 2, 2]
    frames = [None, FrameCommand(code=21), FrameCommand(silent=True)]
    commands = RowCommands.of(frames, torch.tensor([0, 4]))
    assert commands.speech(torch.full((3, 2), 9)).tolist() == [[9, 9], [21, 21], [0, 4]]


# ---------------------------------------------------------------------- in an engine


@pytest.fixture(scope="module", params=["beside 0", "beside 1", "beside 2", "in_place 1", "in_place 2"])
def model(request, tmp_path_factory):
    marks, delay = request.param.split()
    return tiny_model(tmp_path_factory.mktemp("model"), turn_marks=marks, speech_delay=int(delay))


SIGNAL = speech_like(4.0).numpy()


def conversation(model, commands, signal=SIGNAL, **options):
    """Frames of a session, with commands {frame: function of the session} that come before that frame is made."""
    engine = model.open_engine(max_sessions=1)
    session, frames, audio = engine.open_session(**options), [], signal
    session.push(audio)
    while True:
        if len(frames) in commands:
            commands.pop(len(frames))(session)
        answer = engine.step().get(session)
        if answer is None:
            break
        frames += answer
    assert not commands, "Not all commands had their frame."
    return SimpleNamespace(
        tokens=[f.token for f in frames],
        codes=np.stack([f.codes for f in frames]),
        audio=np.concatenate([f.audio for f in frames]),
        session=session,
        frames=frames,
    )


def speaking_frame(model, talk) -> int:
    """A frame in which the agent is in a turn of its own, and has been for a while."""
    layout = model.layout
    writing, since = False, 0
    for frame, token in enumerate(talk.tokens):
        if token == layout.text_eos:
            writing = False
        elif token == layout.text_bos or not writing:
            writing, since = token == layout.text_bos, frame
        if writing and frame - since >= 4 and frame > 10:
            return frame
    raise AssertionError("An agent that is never in a turn would prove nothing.")


@pytest.fixture(scope="module")
def free(model):
    return conversation(model, {5: lambda s: s.start()})


def test_a_stop_is_silent_in_its_frame_and_does_not_click(model, free):
    layout, size, frame = model.layout, 1764, speaking_frame(model, free)
    stopped = conversation(model, {5: lambda s: s.start(), frame: lambda s: s.stop()})
    assert stopped.tokens[:frame] == free.tokens[:frame] and stopped.tokens[frame] == layout.text_eos
    quiet_until = frame + layout.text_tail
    assert (stopped.codes[frame:quiet_until] == model.audio_codec.silence_codes.numpy()).all()
    assert np.isin(stopped.codes[quiet_until], [layout.speech_eos, layout.speech_bos]).all()

    before, after = stopped.audio[: frame * size], stopped.audio[frame * size :]
    assert np.array_equal(before, free.audio[: frame * size])
    fade = round(GAIN_FADE * 22050)
    assert not after[fade:size].any() and np.abs(before).max() > 0.01
    whole = stopped.audio[: (frame + 3) * size]
    steps = np.abs(np.diff(whole))
    assert steps[frame * size - 1 :].max() <= steps[: frame * size - 1].max(), "A click."
    # The decoder has begun anew: what it says of silence is what it says first of all.
    codes = torch.from_numpy(stopped.codes[frame + 1 :]).T[None]
    anew, _ = model.audio_codec.streaming_decoder().step(
        model.specials_to_silence(codes), model.audio_codec.streaming_decoder().init_state(1)
    )
    assert np.abs(after[size + fade :] - anew[0].numpy()[fade:]).max() < 1e-4


def test_say_writes_these_words_and_the_model_goes_on(model):
    text = "What is the day of six?"
    talk = conversation(model, {6: lambda s: s.say(text), 7: lambda s: s.say("two")})
    layout, tokens = model.layout, model.tokenizer.text_to_ids(text)
    start = talk.tokens.index(layout.text_bos, 6)
    assert start <= 7 and talk.tokens[start + 1 : start + 1 + len(tokens)] == tokens
    assert (talk.codes[start + layout.speech_delay] == layout.speech_bos).all()
    said = [turn.text for turn in talk.session.transcript.agent]
    assert text in said
    assert talk.frames[start + 1].text and "".join(f.text for f in talk.frames[start : start + 20]).startswith(text[:5])


def test_mute_is_inaudible_alone(model, free):
    size = 1764
    talk = conversation(model, {5: lambda s: s.start(), 8: lambda s: s.mute(True), 20: lambda s: s.mute(False)})
    assert talk.tokens == free.tokens and np.array_equal(talk.codes, free.codes)
    fade = round(GAIN_FADE * 22050)
    muted = slice(8 * size + fade, 20 * size)
    assert not talk.audio[muted].any()
    for heard in (slice(0, 8 * size), slice(20 * size + fade, None)):
        assert np.array_equal(talk.audio[heard], free.audio[heard])
    assert np.abs(np.diff(talk.audio)).max() <= np.abs(np.diff(free.audio)).max(), "A click."


def test_a_text_that_the_model_cannot_write_is_refused_and_the_session_goes_on(model):
    session = model.open_session()
    for text, message in (("日本", "cannot write 日 本"), ("", "no word"), (None, "got NoneType None, expected a text")):
        with pytest.raises(InputError, match=message):
            session.say(text)
    assert session.push(SIGNAL[:6400]) and session.flush()
    session.close()
    for command in (session.stop, session.start, lambda: session.say("six"), lambda: session.mute(True)):
        with pytest.raises(InputError, match="This session was closed. Open another one"):
            command()


def test_each_command_is_told_with_the_frame_from_which_on_it_holds():
    """A command that comes while a frame is computed holds from the next frame on; a recording must know."""
    agent = ScriptedAgent(BESIDE)
    told = []
    agent.commands.observer = lambda *command: told.append(command)
    agent.commands.start()
    agent.step()
    agent.commands.next()  # frame 1 is being computed
    agent.commands.say([7, 8])
    agent.commands.mute(True)
    agent.commands.stop()
    assert told == [(0, "start", None), (2, "say", [7, 8]), (2, "mute", True), (2, "stop", None)]
    commands = {name for name in vars(AgentCommands) if not name.startswith("_")} - {"next", "advance"}
    assert commands == set(COMMANDS), "Each command must reach the recorder, and be known to the reader."
