"""Measure this model beside NeMo's in-tree one or an older build, its engine, the detector of user activity, or a corpus.

python examples/benchmark.py what=train
python examples/benchmark.py what=train size=paper device=cuda precision=bf16 batch=25 seconds=40
python examples/benchmark.py what=stream model=demo/agent.nemo data=demo/corpus
python examples/benchmark.py what=stream device=cuda precision=bf16 parts=[stages]
python examples/benchmark.py what=user_activity threads=1
python examples/benchmark.py what=serve threads=1 model=demo/agent.nemo data=demo/corpus
python examples/benchmark.py what=corpus data=demo/corpus threads=1
python examples/benchmark.py what=synthesis hours=2
python examples/benchmark.py what=codec threads=1
python examples/benchmark.py what=builds against=../before out=builds.md
"""

from __future__ import annotations

import json
from dataclasses import fields
from importlib import import_module
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from nemo_duplex.scripts.cli import script


@script("benchmark")
def main(cfg: DictConfig) -> None:
    """Measures a training step beside one of NeMo's model (what=train); streaming: how many callers an agent serves in time,
    the stages of a full-size model, NeMo's way to do the same, frames late in a conversation (what=stream); how soon a user is
    heard to speak (what=user_activity); a server and its callers over the network (what=serve); how well a recogniser
    understands a corpus (what=corpus); what it costs to make one (what=synthesis); or to decode codes (what=codec);
    or an agent of this build beside one of an older build (what=builds)."""
    from nemo_duplex.files.atomic import require_writable, whole_file
    from nemo_duplex.inputs import InputError, existing_file, existing_folder

    if cfg.what not in BENCHMARKS:
        raise InputError(f"what={cfg.what}: expected train, stream, user_activity, serve, corpus, synthesis, codec or builds.")
    if cfg.out and Path(cfg.out).suffix not in (".json", ".md"):
        raise InputError(f"out={cfg.out}: expected a name that ends in .json or .md.")
    if cfg.out:
        pages = [str(Path(cfg.out).with_suffix(suffix).name) for suffix in (".json", ".md")]
        require_writable(Path(cfg.out).parent, "out", pages)
    if cfg.model:
        existing_file(cfg.model, "model")
    if cfg.data:
        existing_folder(cfg.data, "data")
    result, tables = _measured(cfg.what, OmegaConf.to_container(cfg))
    print("\n\n".join(table.text() for table in tables))
    if cfg.out:
        pages = {".json": json.dumps(result, indent=2), ".md": "\n\n".join(table.markdown() for table in tables)}
        for suffix in {".json", Path(cfg.out).suffix}:
            with whole_file(Path(cfg.out).with_suffix(suffix)) as path:
                path.write_text(pages[suffix] + "\n")


#: Of each benchmark: its module, what it is asked for, what measures, what makes tables of it.
BENCHMARKS = {
    "train": ("training_step", "TrainingSetting", "benchmark_training", "training_tables"),
    "stream": ("streaming", "StreamingSetting", "benchmark_streaming", "streaming_tables"),
    "user_activity": ("user_activity", "ActivitySetting", "benchmark_user_activity", "user_activity_tables"),
    "serve": ("serving", "ServingSetting", "benchmark_serving", "serving_tables"),
    "corpus": ("corpus", "CorpusSetting", "benchmark_corpus", "corpus_tables"),
    "codec": ("codec", "CodecSetting", "benchmark_codec", "codec_tables"),
    "builds": ("builds", "BuildsSetting", "benchmark_builds", "builds_tables"),
    "synthesis": ("synthesis", "SynthesisSetting", "benchmark_synthesis", "synthesis_tables"),
}


def _measured(what: str, keys: dict) -> tuple[dict, list]:
    """The figures, and their tables."""
    module, *names = BENCHMARKS[what]
    setting, measure, tables = (getattr(import_module(f"nemo_duplex.benchmark.{module}"), name) for name in names)
    result = measure(setting(**{field.name: keys[field.name] for field in fields(setting)}))
    return result, tables(result)


if __name__ == "__main__":
    main()
