"""Parameter names of our model and of NeMo's in-tree DuplexS2SModel."""

from __future__ import annotations

#: First parts of names, ours and theirs. (Our one speech table is a list of tables there.)
PREFIXES = {
    "lm.backbone.llm.": "llm.",
    "lm.backbone.lm_head.": "lm_head.",
    "lm.backbone.embed_tokens.": "embed_tokens.",
    "lm.speech_embedding.table.": "embed_audio_tokens.",
    "lm.speech_head.projection.": "audio_head.",
    "audio_codec.model.": "audio_codec.",
}


def in_tree_name(name: str) -> str:
    """The in-tree name of our parameter `name`, which is the same where no prefix differs."""
    for ours, theirs in PREFIXES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def our_name(name: str) -> str:
    """Our name of the in-tree parameter `name`, wrapped by peft or not; it is the same where no prefix differs."""
    name = name.replace("llm.base_model.model.", "llm.", 1) if name.startswith("llm.") else name
    for ours, theirs in PREFIXES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
