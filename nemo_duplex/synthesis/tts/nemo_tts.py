"""NeMo's text-to-speech models by path: MagpieTTS, or FastPitch with a HiFi-GAN.

    nemo:/voices/magpie.nemo,/voices/codec.nemo            MagpieTTS and its audio codec
    nemo:/voices/fastpitch.nemo,/voices/hifigan.nemo       spectrograms and their vocoder
    nemo:/voices/fastpitch.nemo,/voices/hifigan.nemo,speakers=92+6097      some of many speakers

The class in a file tells what it is. MagpieTTS draws its codes, so every text and speaker has a seed of its own. Texts are said
as they are: NeMo's normaliser of numbers is not used, whether it is installed or not, so that it cannot change a corpus.
"""

from __future__ import annotations

import hashlib
import random
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from logging import getLogger
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nemo_duplex.files.nemo_file import read_nemo_file
from nemo_duplex.inputs import InputError, NotInstalled, one_line
from nemo_duplex.synthesis.tts.cast import EngineVoices, every_fifth_for_dev, with_users
from nemo_duplex.synthesis.tts.languages import is_english
from nemo_duplex.synthesis.tts.readable import readable
from nemo_duplex.synthesis.tts.utterance import OWN_RATE, Utterance, Voice

MAGPIE, CODEC, FASTPITCH, HIFIGAN = "MagpieTTSModel", "AudioCodecModel", "FastPitchModel", "HifiGanModel"

_EXPECTED = "nemo:magpie.nemo,codec.nemo or nemo:fastpitch.nemo,hifigan.nemo"
_CURE = "pip install 'nemo_toolkit[tts]==3.0.0'"
_SPEAKERS = "speakers="
# How the classes of FastPitch's tokenizers begin.
_LANGUAGES = {
    "English": "en", "German": "de", "Spanish": "es", "French": "fr", "Italian": "it", "Vietnamese": "vi", "Hindi": "hi",
    "Chinese": "zh", "Japanese": "ja",
}  # fmt: skip


class _Model(Protocol):
    """What the engine needs of a model."""

    sample_rate: int
    num_speakers: int
    languages: tuple[str, ...]  # that it says, the one of texts without a language first; empty: it does not tell

    def tokens(self, text: str, language: str) -> list[int]:
        """What the model sees of a text."""
        ...

    def say(self, text: str, language: str, speaker: int, pace: float) -> Any:
        """The samples (S,) of a text, a tensor."""
        ...


class NemoEngine:
    """Speaks with models of NeMo, on a GPU if there is one.

    Args:
        paths: of the `.nemo` files, in any order.

    Raises:
        NotInstalled: without a package that NeMo needs for the model.
        InputError: if a file is missing, broken, or of another class; if the files do not belong together.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        import torch

        files, configs = _files(paths)
        first = next(files[kind] for kind in (MAGPIE, FASTPITCH) if kind in files)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        digests = {kind: _digest(path) for kind, path in files.items()}
        with _quiet(), _seeded(0):  # fresh weights are drawn before those of the file replace them
            self._model: _Model = (
                _Magpie(files, configs, self._device) if MAGPIE in files else _FastPitch(files, configs, self._device)
            )
        #: Two files with the same name are two engines.
        self.name = f"nemo-{first.stem}-{digests[MAGPIE if MAGPIE in files else FASTPITCH][:6]}"
        parts = " ".join(f"{kind} {digest}" for kind, digest in digests.items())
        self.version = f"{parts} torch {torch.__version__.split('+')[0]} {self._device.type}"
        self.sample_rate = self._model.sample_rate
        self.num_speakers = self._model.num_speakers
        self._is_silent = lru_cache(maxsize=4096)(self._find_out_whether_silent)

    def speak(self, text: str, voice: Voice) -> Utterance:
        """Says `text` as the speaker whose number is `voice.name`, with the same samples every time.

        Raises:
            InputError: if there is no such speaker, or the model cannot say the text (`cannot_say`).
        """
        import torch

        if not voice.name.isdecimal() or int(voice.name) >= self.num_speakers:
            raise InputError(
                f"{self.name} has no speaker {voice.name!r} (speaker {voice.id}): expected 0 to {self.num_speakers - 1}."
            )
        if (reason := self.cannot_say(text, voice)) is not None:
            raise InputError(reason)
        language, said = self._language(voice), readable(text)
        made_of = f"{said}|{voice.name}|{language}|{voice.rate}"
        try:
            with _quiet(), _seeded(int.from_bytes(hashlib.sha256(made_of.encode()).digest()[:8], "big")):
                audio = self._model.say(said, language, int(voice.name), voice.rate / OWN_RATE)
        except (torch.OutOfMemoryError, InputError):
            raise
        except Exception as error:  # whatever the networks raise for a text
            raise InputError(f"{self.name} cannot say {text[:60]!r}: {type(error).__name__} {one_line(error)}") from error
        samples = audio.detach().float().cpu().numpy().reshape(-1)
        return Utterance(text, np.clip(samples, -1.0, 1.0), self.sample_rate, language=language or None)

    def cannot_say(self, text: str, voice: Voice) -> str | None:
        """Why the model cannot say the text: it has no such language, or NeMo would leave characters out."""
        if not any(map(str.isalnum, text)):
            return f"{self.name} makes no sound of the text {text!r}: give it words to say."
        language, languages = self._language(voice), self._model.languages
        if languages and language not in languages:
            return f"{self.name} has no language {voice.language!r}: it speaks {', '.join(languages)}."
        characters = dict.fromkeys(c for c in readable(text) if _is_said(c))
        if lost := [c for c in characters if self._is_silent(c, language)]:
            return f"{self.name} does not read {', '.join(map(repr, lost[:5]))}: write it in words, or other letters."
        return None

    def _language(self, voice: Voice) -> str:
        """The language that the voice says a text in; "" if the model does not tell its own."""
        if voice.language is None:
            return next(iter(self._model.languages), "")
        main = voice.language.strip().lower().replace("_", "-").split("-")[0]
        if is_english(voice.language):  # or not known
            return "en" if main in ("en", "eng", "english") else next(iter(self._model.languages), "")
        return main

    def _find_out_whether_silent(self, character: str, language: str) -> bool:
        with _quiet():  # NeMo warns of such a character
            return self._model.tokens(character, language) == self._model.tokens("", language)


class _Magpie:
    """MagpieTTS with speakers that are part of it ("baked context")."""

    def __init__(self, files: Mapping[str, Path], configs: Mapping[str, dict[str, Any]], device: Any) -> None:
        path, config = files[MAGPIE], configs[MAGPIE]
        codec = str(files.get(CODEC) or config.get("codecmodel_path"))
        if CODEC not in files and not Path(codec).is_file():
            raise InputError(f"nemo: {path} needs the codec {codec}: give its file too, nemo:{path},/path/of/the/codec.nemo")
        self._model: Any = _restored(path, config | {"codecmodel_path": codec}, device)
        if not self._model.has_baked_context_embedding:
            raise InputError(f"nemo: {path} has no speakers of its own: expected a MagpieTTS with baked context embeddings.")
        from nemo.collections.tts.parts.utils.tts_dataset_utils import LANGUAGE_TOKENIZER_MAP

        tokenizers = self._model.tokenizer.tokenizers
        for tokenizer in tokenizers.values():
            _say_phonemes_alone(tokenizer)
        self._tokenizer_of = {
            language: next(name for name in names if name in tokenizers)
            for language, names in LANGUAGE_TOKENIZER_MAP.items()
            if any(name in tokenizers for name in names)
        }
        self.languages = tuple(self._tokenizer_of)
        parameters, stacked = self._model.inference_parameters, self._model.frame_stacking_factor
        self._most_frames = parameters.max_decoder_steps // stacked * stacked
        self._generate = self._model.generate_speech
        self._model.generate_speech = self._generate_whole
        self.sample_rate = int(self._model.output_sample_rate)
        self.num_speakers = int(self._model.num_baked_speakers)

    def tokens(self, text: str, language: str) -> list[int]:
        tokenizer = self._model.tokenizer
        return tokenizer.encode(text=text, tokenizer_name=self._tokenizer_of.get(language, tokenizer.tokenizer_names[0]))

    def say(self, text: str, language: str, speaker: int, pace: float) -> Any:
        """Its pace is the model's own."""
        audio, length = self._model.do_tts(text, language=language or "en", apply_TN=False, speaker_index=speaker)
        return audio[0, : int(length[0])]

    def _generate_whole(self, batch: Any, *args: Any, **named: Any) -> Any:
        """A part of a text, refused if the model does not find its end: `do_tts` would return it cut off, without a word."""
        generated = self._generate(batch, *args, **named)
        if int(generated.predicted_codes_lens[0]) >= self._most_frames:
            raise InputError(f"MagpieTTS did not come to the end of a text in {self._most_frames} frames: shorten it.")
        return generated


class _FastPitch:
    """FastPitch with speakers by number, and a HiFi-GAN."""

    def __init__(self, files: Mapping[str, Path], configs: Mapping[str, dict[str, Any]], device: Any) -> None:
        path, config = files[FASTPITCH], configs[FASTPITCH]
        _check_same_spectrograms(files, configs)
        self._model: Any = _restored(path, config, device)
        self._vocoder: Any = _restored(files[HIFIGAN], configs[HIFIGAN], device)
        network = self._model.fastpitch
        tables = (network.speaker_emb, getattr(getattr(network.speaker_encoder, "lookup_module", None), "table", None))
        table = next((table for table in tables if table is not None), None)
        if network.speaker_encoder is not None and table is None and network.speaker_encoder.precomputed_emb is None:
            raise InputError(f"nemo: {path} speaks after recordings: expected a FastPitch whose speakers have numbers.")
        self.num_speakers = 1 if table is None else int(table.num_embeddings)
        self._has_numbers = table is not None
        _say_phonemes_alone(self._model.vocab if self._model.learn_alignment else None)
        self.sample_rate = int(self._vocoder.sample_rate)
        self.languages = _fastpitch_language(config)

    def tokens(self, text: str, language: str) -> list[int]:
        return self._model.parse(text, normalize=False)[0].tolist()

    def say(self, text: str, language: str, speaker: int, pace: float) -> Any:
        tokens = self._model.parse(text, normalize=False)
        spectrogram = self._model.generate_spectrogram(tokens=tokens, speaker=speaker if self._has_numbers else None, pace=pace)
        return self._vocoder.convert_spectrogram_to_audio(spec=spectrogram)[0]


def nemo_voices(needs: str | None) -> EngineVoices:
    """Models of NeMo with their speakers; of five or more, every fifth is one of dev. One alone is an agent without users.

    Args:
        needs: paths and `speakers=` with numbers, divided by commas; the first speaker is the agent too.

    Raises:
        As `NemoEngine`; InputError: for a speaker that the model does not have.
    """
    parts = [part.strip() for part in (needs or "").split(",") if part.strip()]
    paths = [Path(part) for part in parts if not part.startswith(_SPEAKERS)]
    if not paths:
        raise InputError(f"nemo: expected paths of .nemo files: {_EXPECTED}")
    chosen = [name for part in parts if part.startswith(_SPEAKERS) for name in part.removeprefix(_SPEAKERS).split("+")]
    engine = NemoEngine(paths)
    known = [str(number) for number in range(engine.num_speakers)]
    if wrong := next((name for name in chosen if name not in known), None):
        raise InputError(f"nemo: {_SPEAKERS}{'+'.join(chosen)}: there is no speaker {wrong!r}, expected 0 to {known[-1]}.")
    names = list(dict.fromkeys(chosen)) or known
    users = [Voice(f"{engine.name}-{name}", name, engine=engine.name) for name in names] if len(names) > 1 else []
    agent = Voice("agent", names[0], engine=engine.name)
    return with_users(engine, agent, *every_fifth_for_dev(users))


def _files(paths: Sequence[Path]) -> tuple[dict[str, Path], dict[str, dict[str, Any]]]:
    """The files and their configurations by class: those of one of the two kinds of model."""
    files, configs = dict[str, Path](), dict[str, dict[str, Any]]()
    for path in paths:
        config, _ = read_nemo_file(path, "nemo")  # refuses code in the weights, and what is unsafe to unpack
        kind = str(config.get("target", "")).rsplit(".", 1)[-1]
        if kind not in (MAGPIE, CODEC, FASTPITCH, HIFIGAN):
            raise InputError(f"nemo: {path} is a model of class {config.get('target', 'unknown')}, expected {_EXPECTED}.")
        if kind in files:
            raise InputError(f"nemo: {files[kind]} and {path} are both of class {kind}, expected {_EXPECTED}.")
        files[kind], configs[kind] = path, config
    if set(files) not in ({MAGPIE}, {MAGPIE, CODEC}, {FASTPITCH, HIFIGAN}):
        given = " and ".join(f"{path} ({kind})" for kind, path in files.items())
        raise InputError(f"nemo: {given} do not speak alone, expected {_EXPECTED}.")
    return files, configs


def _restored(path: Path, config: dict[str, Any], device: Any) -> Any:
    """The model in a file, ready to speak."""
    try:
        import nemo.collections.tts.models as models
        from omegaconf import OmegaConf

        model = getattr(models, config["target"].rsplit(".", 1)[-1]).restore_from(
            str(path), override_config_path=OmegaConf.create(config), map_location=device
        )
    except Exception as error:  # NeMo, hydra and torch each raise their own
        if (package := _missing_package(error)) is not None:
            raise NotInstalled(f"{path} needs {package}, which is not installed: {_CURE}") from error
        raise InputError(f"nemo: {path} cannot be restored: {type(error).__name__} {one_line(error)}") from error
    return model.eval()


def _missing_package(error: BaseException | None) -> str | None:
    """The package whose import was the first cause of an error; hydra wraps it in errors of its own."""
    found = None
    while error is not None:
        name = error.name if isinstance(error, ImportError) else None
        found = name if name and not name.startswith("nemo.") else found
        error = error.__cause__ or error.__context__
    return found


def _say_phonemes_alone(tokenizer: Any) -> None:
    """Lets a tokenizer write each word in phonemes; those of a training leave some in letters, drawn anew at each call."""
    g2p: Any = getattr(tokenizer, "g2p", None)
    if getattr(g2p, "phoneme_probability", None) is not None:
        g2p.phoneme_probability = 1.0


def _check_same_spectrograms(files: Mapping[str, Path], configs: Mapping[str, dict[str, Any]]) -> None:
    """Refuses a vocoder of other spectrograms: it would speak at another pitch and pace."""
    for keys in (("sample_rate",), ("n_window_stride",), ("features", "nfilt")):
        found = {}
        for kind in (FASTPITCH, HIFIGAN):
            preprocessor = configs[kind].get("preprocessor") or {}
            found[kind] = next((preprocessor[key] for key in keys if preprocessor.get(key) is not None), None)
        if None not in found.values() and len(set(found.values())) > 1:
            raise InputError(
                f"nemo: {files[FASTPITCH]} has the {keys[0]} {found[FASTPITCH]}, {files[HIFIGAN]} {found[HIFIGAN]}: "
                "expected the HiFi-GAN that was made for this FastPitch."
            )


def _fastpitch_language(config: Mapping[str, Any]) -> tuple[str, ...]:
    tokenizer = config.get("text_tokenizer")
    if not isinstance(tokenizer, dict):
        return ("en",)  # the first FastPitch of NeMo had English letters alone
    if locale := tokenizer.get("locale"):
        return (str(locale).split("-")[0].lower(),)
    name = str(tokenizer.get("_target_", "")).rsplit(".", 1)[-1]
    return tuple(language for prefix, language in _LANGUAGES.items() if name.startswith(prefix))


def _is_said(character: str) -> bool:
    """Whether a character should be heard, and a model may not know it: all but punctuation and the letters of ASCII."""
    return not (character.isascii() and character.isalpha()) and unicodedata.category(character)[0] in "LNS"


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:12]


@contextmanager
def _quiet() -> Iterator[None]:
    """NeMo logs a line or more for each text, and for an error more than the one line that is ours."""
    from nemo.utils import logging

    hydra = getLogger("hydra.utils")
    with logging.temp_verbosity(logging.CRITICAL):
        hydra.disabled = True
        try:
            yield
        finally:
            hydra.disabled = False


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draws from a seed, on one thread, whose sums have one order; the random states of the process are as before after it."""
    import torch

    python, numpys, threads = random.getstate(), np.random.get_state(), torch.get_num_threads()
    devices = list(range(torch.cuda.device_count()))
    exact = torch.backends.cudnn.flags(benchmark=False, deterministic=True)
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad(), exact:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed % 2**63)
            torch.set_num_threads(1)
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(python)
        np.random.set_state(numpys)
