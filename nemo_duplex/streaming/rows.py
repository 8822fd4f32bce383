"""The batched computation of one frame: B rows hear, think and speak, each at its own age and in its own phase.

    hear     an encoder chunk of audio ── mel ── encoder ──> embeddings of its frames, in `pending`
    think    the next of them ── llm ──> text token and codes
    speak    the codes ── codec ──> audio

Each of the four stages is a function of tensors, and all state is in `RowsState`, whose buffers are written in place. On a GPU
shapes are constant and no Python looks at the data, so each can become a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nemo_duplex.codec.streaming_decoder import DecoderState
from nemo_duplex.inputs import InputError
from nemo_duplex.kernels.convolution import has_fast_bfloat16
from nemo_duplex.kernels.linear import in_bfloat16, in_int8, on_onednn
from nemo_duplex.llm.frame_step import same_inputs
from nemo_duplex.models.agent import DuplexAgent
from nemo_duplex.models.duplex_lm import DuplexLM, DuplexState, FrameOutput, most_likely
from nemo_duplex.perception.perception import Perception
from nemo_duplex.perception.stream import PerceptionStream, StreamState, attention_inputs
from nemo_duplex.streaming.commands import FrameCommand, RowCommands
from nemo_duplex.streaming.sampling import AgentSampling, RowSampler, SamplerState
from nemo_duplex.streaming.stage_runner import StageRunner, mapped, tensors

# From so many rows on, products in bfloat16 are as fast as those in 8 bits, whose rows are rounded first.
_MANY = 16
# An encoder's layers are smaller than those of a language model; in 8 bits they change little of what is said.
_SMALLEST_OF_EAR = 1 << 17


@dataclass
class RowsState:
    """All that B rows remember, each of its own age. Made by `AgentRows.init_state`; its size never changes."""

    perception: StreamState
    pending: Tensor  # (B, frames of an encoder chunk, H) embeddings of the latest encoder chunk
    answered: Tensor  # (B,) frames of that encoder chunk that have been answered
    lm: DuplexState
    decoder: DecoderState
    sampler: SamplerState
    frames: Tensor  # (B,) frames since the row began

    def first(self, rows: int) -> RowsState:
        """The first rows as a view: what is written into it is written here."""
        return mapped(self, lambda tensor: tensor[:rows])

    def row(self, row: int) -> RowsState:
        """A copy of one row."""
        return mapped(self, lambda tensor: tensor[row : row + 1].clone())

    def put(self, row: int, one: RowsState) -> None:
        """Overwrites all of a row with a state of one row; nothing of what was there is left."""
        for here, there in zip(tensors(self), tensors(one)):
            here[row].copy_(there[0])


class ChunkBatch(NamedTuple):
    """The next encoder chunk of some rows."""

    audio: Tensor  # (n, chunk_samples) float32; a row's first encoder chunk begins with the perception's `lead_samples` zeros
    rows: Tensor  # (n,) int64, all different: whose encoder chunks they are
    live: Tensor  # (n,) bool; False where an entry only fills the batch, and its row stays as it is

    @classmethod
    def of(cls, audio: np.ndarray, rows: Mapping[int, int], num_rows: int, device: torch.device) -> ChunkBatch:
        """The entries of `audio` (n, chunk_samples) that `rows` {entry: row} names; the others get idle ones of `num_rows`."""
        taken = set(rows.values())
        idle = (row for row in range(num_rows) if row not in taken)
        return cls(
            audio=torch.from_numpy(audio).to(device),
            rows=torch.tensor([rows[entry] if entry in rows else next(idle) for entry in range(len(audio))]).to(device),
            live=torch.tensor([entry in rows for entry in range(len(audio))]).to(device),
        )


class AgentRows:
    """A model, run for many rows at a time.

    What a row gives depends on that row alone: every operation is elementwise over rows or sums within one. Its numbers are
    bit-identical as long as the size of the batch is; with another size, a BLAS may add in another order, which moves float32
    logits by about 1e-6 of their size: tokens stay the same but for ties closer than that.

    Args:
        model: in evaluation from now on; its weights are taken as they are now.
        run: runs the stages; None runs them as they are.
        prompt_tokens: number of tokens of the longest system prompt.
        int8: whether to be fast rather than exact: encoder and language model in 8 bits, or for 16 rows and more in bfloat16;
            the codec in bfloat16.
        rows: at most so many are run at a time.

    Raises:
        InputError: for an encoder that takes whole recordings only, or int8 with torch.compile or on a machine that lacks it.
    """

    def __init__(
        self, model: DuplexAgent, run: StageRunner | None = None, prompt_tokens: int = 0, int8: bool = False, rows: int = 1
    ) -> None:
        self.model = model.eval()
        self._run = run or StageRunner(model.device, cuda_graphs=False)
        if int8 and self._run.compiles:  # Inductor takes packed weights only if they are constants of its graph
            raise InputError(
                "compile=True and int8=True were given, expected one of them: torch.compile fails on packed weights. "
                "Leave compile out, or int8."
            )
        self._prompt_tokens = prompt_tokens
        self.chunk_frames: int = model.perception.chunk_frames
        self.chunk_samples: int = model.perception.chunk_samples
        self._lm, perception = self._in_int8(rows) if int8 else self._in_float(rows)
        self._perception = PerceptionStream(perception)
        self._decoder = model.audio_codec.streaming_decoder(check=False, bfloat16=int8)
        self._sampler = RowSampler(model.layout)
        self._draw = torch.compiler.disable(self._sampler.choose)  # a sort and a hash: minutes to compile, nothing to gain
        self._blank: RowsState | None = None  # a greedy row without a prompt
        self._free: dict[int, RowCommands] = {}  # by how many rows there are

    def _in_float(self, rows: int) -> tuple[DuplexLM, Perception]:
        """Language model and perception as exact as they are."""
        return on_onednn(self.model.lm, rows), on_onednn(self.model.perception, rows * self.chunk_frames)

    def _in_int8(self, rows: int) -> tuple[DuplexLM, Perception]:
        """Language model and perception in 8 bits; in bfloat16 for many rows, where this CPU is fast with it."""
        lm, perception = self.model.lm, self.model.perception
        layers, heard = same_inputs(lm.backbone.llm), attention_inputs(perception)
        if rows >= _MANY and has_fast_bfloat16():
            return in_bfloat16(lm, layers), in_bfloat16(perception, heard)
        return in_int8(lm, layers), in_int8(perception, heard, _SMALLEST_OF_EAR)

    # ------------------------------------------------------------------ what rows remember

    def init_state(self, num_rows: int, sampling: AgentSampling | None = None, seed: int = 0) -> RowsState:
        """The memory of new rows; sampling None is greedy."""
        weight = self.model.perception.proj.weight
        start = torch.zeros(num_rows, dtype=torch.long, device=weight.device)
        return RowsState(
            perception=self._perception.init_state(num_rows),
            pending=weight.new_zeros(num_rows, self.chunk_frames, self.model.perception.output_dim),
            answered=start,
            lm=self.model.lm.init_state(num_rows, self._prompt_tokens),
            decoder=self._decoder.init_state(num_rows),
            sampler=SamplerState.of(sampling or AgentSampling(), seed, num_rows, weight.device),
            frames=start.clone(),
        )

    def blank_row(self, sampling: AgentSampling, seed: int, prompt: Sequence[int]) -> RowsState:
        """The memory of one new row that has read its system prompt. It may be shared: copy it, do not change it."""
        if sampling.greedy and not prompt:
            self._blank = self._blank or self.init_state(1)
            return self._blank
        state = self.init_state(1, sampling, seed)
        if prompt:
            self.model.lm.prompt(torch.tensor([list(prompt)], device=state.frames.device), state.lm)
        return state

    # ------------------------------------------------------------------ one frame

    def hear(self, state: RowsState, chunks: ChunkBatch) -> None:
        """The next encoder chunk of some rows, whose frames then wait in `pending`; `state` of all rows is changed in place."""
        window = self._run("mel", self._mel, state, *chunks)
        self._run("encoder", self._encoder, state, window, chunks.rows, chunks.live)

    def think(self, state: RowsState, live: Tensor, commands: RowCommands | None, sampled: bool) -> FrameOutput:
        """The next text token and codes of the rows of `live` (B,) bool, each of which must have a frame pending.

        Args:
            state: of these B rows; changed in place where live.
            live: (B,) bool.
            commands: what callers make their agents do in this frame, as `commands` makes it.
            sampled: whether there are rows that are not greedy; greedy ones are the same to the bit either way.
        """
        return self._run("llm", self._llm, state, live, commands, sampled)

    def speak(self, state: RowsState, codes: Tensor, live: Tensor, commands: RowCommands | None) -> Tensor:
        """The sound (B, samples_per_frame) at the model's agent_sample_rate of the `codes` (B, K) that `think` gave."""
        return self._run("codec", self._codec, state, codes, live, commands)

    def commands(self, frames: Sequence[FrameCommand | None]) -> RowCommands | None:
        """The commands of B rows for `think` and `speak`, of each None where it is free; None where all are."""
        silence = self.model.audio_codec.silence_codes
        if any(frames):
            return RowCommands.of(frames, silence)
        if not self._run.needs_warm_up:
            return None
        if len(frames) not in self._free:  # one thing less that is different from step to step
            self._free[len(frames)] = RowCommands.of(frames, silence)
        return self._free[len(frames)]

    def warm_up(self, state: RowsState, views: Iterable[RowsState]) -> None:
        """Runs all stages in all shapes: `hear` with this state, the others with these first rows of it. Changes nothing."""
        for view in views:
            rows = torch.arange(len(view.frames), device=view.frames.device)
            idle = torch.zeros_like(rows, dtype=torch.bool)
            audio = view.pending.new_zeros(len(rows), self.chunk_samples, dtype=torch.float32)
            self.hear(state, ChunkBatch(audio, rows, idle))
            commands = self.commands([None] * len(rows))
            for sampled in (False, True):
                output = self.think(view, idle, commands, sampled)
                self.speak(view, output.codes, idle, commands)

    # ------------------------------------------------------------------ stages

    def _mel(self, state: RowsState, audio: Tensor, rows: Tensor, live: Tensor) -> Tensor:
        return self._perception.mel(audio, state.perception, rows, live)

    def _encoder(self, state: RowsState, window: Tensor, rows: Tensor, live: Tensor) -> None:
        embeddings = self._perception.encoder(window, state.perception, rows, live)
        pending = torch.where(live[:, None, None], embeddings, state.pending.index_select(0, rows))
        state.pending.index_copy_(0, rows, pending)
        state.answered.index_copy_(0, rows, torch.where(live, 0, state.answered.index_select(0, rows)))

    def _llm(self, state: RowsState, live: Tensor, commands: RowCommands | None, sampled: bool) -> FrameOutput:
        next_frame = state.answered.clamp(max=self.chunk_frames - 1)[:, None, None]
        user = state.pending.gather(1, next_frame.expand(-1, 1, state.pending.shape[2]))[:, 0]

        def choose(text: Tensor, speech: Tensor) -> FrameOutput:
            free = self._draw(text, speech, state.sampler, state.frames) if sampled else most_likely(text, speech)
            if commands is None:
                return free
            tokens = commands.text(free.tokens, text, self.model.layout.text_pad)
            return FrameOutput(tokens, commands.speech(free.codes))

        # The step puts new tokens and codes into the state that it is given; ours keeps its own tensors. The cache it changes.
        lm = replace(state.lm, cache=replace(state.lm.cache))
        output, lm = self._lm.step(user, lm, live, choose)
        state.lm.tokens.copy_(lm.tokens)
        state.lm.codes.copy_(lm.codes)
        if sampled:
            self._sampler.remember(output.tokens, state.sampler, live)
        state.answered.add_(live)
        state.frames.add_(live)
        return output

    def _codec(self, state: RowsState, codes: Tensor, live: Tensor, commands: RowCommands | None) -> Tensor:
        """(B, K) -> (B, samples_per_frame)."""
        audio, after = self._decoder.step(self.model.specials_to_silence(codes[:, :, None]), state.decoder)
        if commands is not None:
            audio = commands.sound(audio, self.model.agent_sample_rate)
            after.reset(commands.restart)
        all_live = live.device.type == "cpu" and not torch.compiler.is_compiling() and bool(live.all())
        for buffer, new in zip(state.decoder.buffers, after.buffers):
            if all_live:
                buffer.copy_(new)
                continue
            torch.where(live.view(-1, *[1] * (new.dim() - 1)), new.to(buffer.dtype), buffer, out=buffer)
        return audio
