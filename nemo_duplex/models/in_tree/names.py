"""What NeMo's in-tree DuplexS2SModel calls the parameters of this one."""

from __future__ import annotations

#: Beginnings of names, ours and theirs. Where only ours has a name (`lm.speech_embedding`), theirs is the list of tables.
PREFIXES = {
    "lm.backbone.llm.": "llm.",
    "lm.backbone.lm_head.": "lm_head.",
    "lm.backbone.embed_tokens.": "embed_tokens.",
    "lm.speech_embedding.table.": "embed_audio_tokens.",
    "lm.speech_head.projection.": "audio_head.",
    "audio_codec.model.": "audio_codec.",
}


def in_tree_name(name: str) -> str:
    """The in-tree name of our parameter `name`; what has none there keeps its own."""
    for ours, theirs in PREFIXES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def our_name(name: str) -> str:
    """Our name of the in-tree parameter `name`, wrapped by peft or not; what has none here keeps its own."""
    name = name.replace("llm.base_model.model.", "llm.", 1) if name.startswith("llm.") else name
    for ours, theirs in PREFIXES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
