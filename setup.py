"""What the package is and needs. Tool settings stand in pyproject.toml, pinned versions in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_namespace_packages, setup

ROOT = Path(__file__).parent

EXTRAS = {
    "tts": ["espeakng-loader"],  # eSpeak NG is GPL-3: loaded at run time where it is installed, never part of this package
    "eval": ["pocketsphinx", "silero-vad>=5"],
    "lora": ["peft"],
    "serve": ["httptools", "prometheus-client", "python-multipart", "sphn", "starlette", "uvicorn>=0.30", "websockets>=15"],
    "webrtc": ["aiortc", "av"],
    "test": ["build", "httpx", "hypothesis", "peft", "pytest"],
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
