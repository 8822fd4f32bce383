"""The one batched computation of the streaming engine: B rows hear and speak, each at its own age and in its own phase.

    hear     an encoder chunk of audio ── mel ── encoder ──         embeddings of its frames wait in `pending`
    speak    the next of them ── llm ── codec ──           one frame of text and audio

Each of the four stages is a function of tensors: shapes are constant, no Python looks at the data, and all that is remembered
lies in `RowsState`, whose buffers are written in place. So each can become a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from nemo_duplex.llm.int8_linear import in_int8
from nemo_duplex.models.duplex_lm import FrameOutput, most_likely
from nemo_duplex.perception.stream import PerceptionStream
from nemo_duplex.streaming.control import RowControls
from nemo_duplex.streaming.rows_state import RowsState, write
from nemo_duplex.streaming.sampling import AgentSampling, RowSampler, SamplerState
from nemo_duplex.streaming.stages import StageRunner

if TYPE_CHECKING:
    from nemo_duplex.models.agent import DuplexAgent


class RowFrames(NamedTuple):
    """One frame of each row; without meaning in rows that are idle."""

    tokens: Tensor  # (B,)
    codes: Tensor  # (B, K), specials included
    audio: Tensor  # (B, samples_per_frame) float at the model's agent_sample_rate


class AgentRows:
    """A model, run for many rows at a time.

    What a row gives depends on that row alone: every operation is elementwise over rows or sums within one. Its numbers are
    bit-identical as long as the size of the batch is; with another size, a BLAS may add in another order, which moves float32
    logits by about 1e-6 of their size: tokens stay the same but for ties closer than that.

    Args:
        model: in evaluation from now on; its weights are taken as they are now.
        run: runs the stages; None runs them as they are.
        int8: whether encoder and language model compute in 8 bits (`in_int8`).

    Raises:
        InputError: for an encoder that hears whole recordings only, or int8 on a machine that cannot do it.
    """

    def __init__(self, model: DuplexAgent, run: StageRunner | None = None, int8: bool = False) -> None:
        self.model = model.eval()
        self._run = run or StageRunner(model.device, cuda_graphs=False)
        self.chunk_frames: int = model.perception.chunk_frames
        self.chunk_samples: int = model.perception.chunk_samples
        self._lm = in_int8(model.lm) if int8 else model.lm
        self._perception = PerceptionStream(in_int8(model.perception) if int8 else model.perception)
        self._decoder = model.audio_codec.streaming_decoder(check=False)
        self._sampler = RowSampler(model.layout)
        self._draw = torch.compiler.disable(self._sampler.choose)  # a sort and a hash: minutes to compile, nothing to gain
        self._free: dict[int, RowControls] = {}  # of so many rows that nobody controls

    def init_state(
        self, num_rows: int, sampling: AgentSampling | None = None, seed: int = 0, prompt_tokens: int = 0
    ) -> RowsState:
        """The memory of rows that have heard nothing; None is greedy. `prompt_tokens`: of the longest system prompt."""
        weight = self.model.perception.proj.weight
        start = torch.zeros(num_rows, dtype=torch.long, device=weight.device)
        return RowsState(
            perception=self._perception.init_state(num_rows),
            pending=weight.new_zeros(num_rows, self.chunk_frames, self.model.perception.output_dim),
            spoken=start,
            lm=self.model.lm.init_state(num_rows, prompt_tokens),
            decoder=self._decoder.init_state(num_rows),
            sampler=SamplerState.of(sampling or AgentSampling(), seed, num_rows, weight.device),
            frames=start.clone(),
        )

    def prompt(self, state: RowsState, tokens: Sequence[int]) -> None:
        """The system prompt of rows whose first frame is yet to come; `state` is changed in place."""
        row = torch.tensor(tokens, device=state.frames.device)
        self.model.lm.prompt(row.expand(len(state.frames), -1), state.lm)

    def hear(self, state: RowsState, audio: Tensor, rows: Tensor, live: Tensor) -> None:
        """The next encoder chunk of some rows.

        Args:
            state: of all rows; changed in place.
            audio: (n, chunk_samples), a row's first encoder chunk beginning with the perception's `lead_samples` zeros.
            rows: (n,) int64, all different: whose encoder chunks they are.
            live: (n,) bool; False where an entry only fills the batch, and its row stays as it is.
        """
        window = self._run("mel", self._mel, state, audio, rows, live)
        self._run("encoder", self._encoder, state, window, rows, live)

    def speak(self, state: RowsState, live: Tensor, controls: RowControls | None = None, sampled: bool = False) -> RowFrames:
        """The next frame of the rows of `live` (B,) bool, each of which must have a frame pending.

        Args:
            state: of these B rows; changed in place where live.
            live: (B,) bool.
            controls: what callers make the agent do in this frame; None lets all rows speak freely.
            sampled: whether there are rows that are not greedy; greedy ones are the same to the bit either way.
        """
        if controls is None and self._run.needs_warm_up:  # one thing less that is different from step to step
            if len(live) not in self._free:
                self._free[len(live)] = RowControls.of([None] * len(live), self.model.audio_codec.silence_codes)
            controls = self._free[len(live)]
        output = self._run("llm", self._llm, state, live, controls, sampled)
        audio = self._run("codec", self._codec, state, output.codes, live, controls)
        return RowFrames(output.tokens, output.codes, audio)

    def warm_up(self, state: RowsState, views: Iterable[RowsState]) -> None:
        """Meets all shapes that `hear` with this state and `speak` with these first rows of it will have; nothing changes."""
        for view in views:
            rows = torch.arange(len(view.frames), device=view.frames.device)
            idle = torch.zeros_like(rows, dtype=torch.bool)
            self.hear(state, view.pending.new_zeros(len(rows), self.chunk_samples, dtype=torch.float32), rows, idle)
            for sampled in (False, True):
                self.speak(view, idle, sampled=sampled)

    # ------------------------------------------------------------------ stages

    def _mel(self, state: RowsState, audio: Tensor, rows: Tensor, live: Tensor) -> Tensor:
        return self._perception.mel(audio, state.perception, rows, live)

    def _encoder(self, state: RowsState, window: Tensor, rows: Tensor, live: Tensor) -> None:
        embeddings = self._perception.encoder(window, state.perception, rows, live)
        waiting = torch.where(live[:, None, None], embeddings, state.pending.index_select(0, rows))
        state.pending.index_copy_(0, rows, waiting)
        state.spoken.index_copy_(0, rows, torch.where(live, 0, state.spoken.index_select(0, rows)))

    def _llm(self, state: RowsState, live: Tensor, controls: RowControls | None, sampled: bool) -> FrameOutput:
        next_frame = state.spoken.clamp(max=self.chunk_frames - 1)[:, None, None]
        user = state.pending.gather(1, next_frame.expand(-1, 1, state.pending.shape[2]))[:, 0]

        def choose(text: Tensor, speech: Tensor) -> FrameOutput:
            free = self._draw(text, speech, state.sampler, state.frames) if sampled else most_likely(text, speech)
            if controls is None:
                return free
            tokens = controls.written(free.tokens, text, self.model.layout.text_pad)
            return FrameOutput(tokens, controls.said(free.codes))

        # The step puts new tensors into the state that it is given; ours keeps its own.
        lm = replace(state.lm, cache=replace(state.lm.cache))
        output, lm = self._lm.step(user, lm, live, choose)
        write(state.lm, lm)
        if sampled:
            self._sampler.remember(output.tokens, state.sampler, live)
        state.spoken.add_(live)
        state.frames.add_(live)
        return output

    def _codec(self, state: RowsState, codes: Tensor, live: Tensor, controls: RowControls | None) -> Tensor:
        """(B, K) -> (B, samples_per_frame)."""
        audio, after = self._decoder.step(self.model.specials_to_silence(codes[:, :, None]), state.decoder)
        if controls is not None:
            audio = controls.sounding(audio, self.model.agent_sample_rate)
            after.reset(controls.restart)
        for buffer, new in zip(state.decoder.buffers, after.buffers):
            torch.where(live.view(-1, *[1] * (new.dim() - 1)), new.to(buffer.dtype), buffer, out=buffer)
        return audio
