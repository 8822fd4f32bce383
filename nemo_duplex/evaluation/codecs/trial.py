"""Utterances sent through codecs, and what scorers and a recogniser say of what comes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import numpy as np
import soxr
from tqdm import tqdm

from nemo_duplex.evaluation.codecs.delay import MOST, delay_of
from nemo_duplex.evaluation.codecs.speech_codec import Decoded, SpeechCodec
from nemo_duplex.evaluation.codecs.utterances import Utterance
from nemo_duplex.evaluation.speech.full_reference import FullReferenceScorer
from nemo_duplex.evaluation.speech.kept_answers import KeptAnswers
from nemo_duplex.evaluation.speech.recogniser import Recogniser
from nemo_duplex.evaluation.speech.scoring_processes import Judge, Task, score_sounds
from nemo_duplex.evaluation.speech.sound_scorer import Answer, SoundScorer
from nemo_duplex.frames import Seconds

#: The row of what went in.
ORIGINAL = "original"
_PROBES = 16  # utterances that tell a codec's delay
_WAITING = 4  # sounds for each of the recogniser's threads that may wait

Sound = tuple[np.ndarray, int]


class CodecTrial:
    """Sounds by row: the originals, and what each codec makes of them, without its delay and as long as they were.

    Args:
        scorers: of single sounds.
        pair_scorers: of a sound beside its original; names differ from those of `scorers`.
        recogniser: transcribes the utterances that have a text; None hears nothing.
        kept: answers of before, and where new ones are kept.

    Attributes:
        answers: (utterance, row, scorer) -> what it says.
        heard: (utterance, row) -> transcript.
        delays: codec -> Seconds by which it is late.
        kbps: codec -> kilobits of its codes, over the seconds that they stand for.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        codecs: Sequence[SpeechCodec],
        scorers: Mapping[str, SoundScorer],
        pair_scorers: Mapping[str, FullReferenceScorer],
        recogniser: Recogniser | None,
        kept: KeptAnswers,
    ) -> None:
        self.utterances, self.codecs = utterances, {one.name: one for one in codecs}
        self.scorers, self.pair_scorers, self.recogniser = scorers, pair_scorers, recogniser
        self.answers: dict[tuple[int, str, str], Answer] = {}
        self.heard: dict[tuple[int, str], str] = {}
        self.delays: dict[str, Seconds] = {}
        self.kbps: dict[str, float] = {}
        self._kept, self._lock = kept, Lock()
        self._keys: dict[tuple[int, str, str], str] = {}
        self._hearing: list[Future] = []

    def run(self, workers: int = 1, progress: bool = True) -> None:
        """Asks everybody about all sounds, but for what is kept.

        Args:
            workers: processes of scorers, and threads of the recogniser; 0: this process and one thread.
        """
        self._find_delays()
        judges: dict[str, Judge] = {**self.scorers, **self.pair_scorers}
        pool = ThreadPoolExecutor(max(1, workers))
        try:
            for tag, answer in score_sounds(self._tasks(pool, max(1, workers), progress), judges, workers):
                self.answers[tag] = answer
                if "failed" not in answer:  # that may go better the next time
                    i, row, name = tag
                    self._keep(self._keys[tag], name, f"{self.utterances[i].id}, {row}", answer)
            for one in self._hearing:
                one.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def sounds(self, utterance: Utterance) -> dict[str, Sound]:
        """(S,) float32 and its rate by row: of an utterance, and of what each codec makes of it."""
        return {ORIGINAL: (utterance.samples, utterance.sample_rate)} | {
            name: self._in_time(name, _sent(codec, utterance), utterance) for name, codec in self.codecs.items()
        }

    def _find_delays(self) -> None:
        step = max(1, len(self.utterances) // _PROBES)
        for name, codec in self.codecs.items():
            pairs, rate = [], 1
            for u in self.utterances[::step][:_PROBES]:
                decoded = _sent(codec, u)
                rate = decoded.sample_rate
                pairs.append((soxr.resample(u.samples, u.sample_rate, rate), decoded.samples))
            self.delays[name] = delay_of(pairs, rate) / rate

    def _in_time(self, name: str, decoded: Decoded, utterance: Utterance) -> Sound:
        rate = decoded.sample_rate
        late, length = round(self.delays[name] * rate), round(len(utterance.samples) * rate / utterance.sample_rate)
        sound = decoded.samples[late:] if late >= 0 else np.pad(decoded.samples, (-late, 0))
        return np.pad(sound[:length], (0, max(0, length - len(sound)))), rate

    def _tasks(self, pool: ThreadPoolExecutor, threads: int, progress: bool) -> Iterator[Task]:
        """What nobody has answered yet."""
        bits, seconds = dict.fromkeys(self.codecs, 0.0), dict.fromkeys(self.codecs, 0.0)
        for i, u in enumerate(tqdm(self.utterances, desc="Codecs", unit="", leave=False, delay=5, disable=not progress)):
            sounds = {ORIGINAL: (u.samples, u.sample_rate)}
            for name, codec in self.codecs.items():
                decoded = _sent(codec, u)
                bits[name] += decoded.bits
                seconds[name] += decoded.seconds
                self.kbps[name] = bits[name] / seconds[name] / 1000
                sounds[name] = self._in_time(name, decoded, u)
            for row, (audio, rate) in sounds.items():
                self._hear(pool, threads, i, row, audio, rate)
                for scorer, one in self.scorers.items():
                    yield from self._asked((i, row, scorer), one, audio, rate)
                if row != ORIGINAL:
                    pair = np.stack([soxr.resample(u.samples, u.sample_rate, rate)[: len(audio)], audio])
                    for scorer, beside in self.pair_scorers.items():
                        yield from self._asked((i, row, scorer), beside, pair, rate)

    def _asked(self, tag: tuple[int, str, str], judge: Judge, audio: np.ndarray, rate: int) -> Iterator[Task]:
        self._keys[tag] = KeptAnswers.key(judge.scorer, audio, rate)
        before = self._kept.get(self._keys[tag])
        if before is None:
            yield Task(tag, tag[2], audio, rate)
        else:
            self.answers[tag] = before

    def _hear(self, pool: ThreadPoolExecutor, threads: int, i: int, row: str, audio: np.ndarray, rate: int) -> None:
        """Asks the recogniser about an utterance of which is known what is said; few may wait, as all have their sound."""
        u = self.utterances[i]
        if self.recogniser is None or u.text is None or not self.recogniser.understands(u.language):
            return
        while len(self._hearing) >= _WAITING * threads:
            self._hearing.pop(0).result()
        self._hearing.append(pool.submit(self._listen, i, row, audio, rate, self.recogniser))

    def _listen(self, i: int, row: str, audio: np.ndarray, rate: int, recogniser: Recogniser) -> None:
        u = self.utterances[i]
        key = f"{u.language} {KeptAnswers.key(recogniser.scorer, audio, rate)}"
        answer = self._kept.get(key)
        if answer is None:
            answer = {"transcript": recogniser.transcribe(audio, rate, u.language)}
            self._keep(key, recogniser.scorer.name, f"{u.id}, {row}", answer)
        self.heard[i, row] = answer["transcript"]

    def _keep(self, key: str, scorer: str, of: str, answer: Answer) -> None:
        with self._lock:
            self._kept.add(key, scorer, of, answer)


def _sent(codec: SpeechCodec, utterance: Utterance) -> Decoded:
    """What comes back of an utterance and of silence behind it, in which the codec says what is still inside of it."""
    silence = round(MOST * utterance.sample_rate)
    return codec.send(np.pad(utterance.samples, (0, silence)), utterance.sample_rate)
