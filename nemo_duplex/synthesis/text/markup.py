"""What stands inside a text and nobody says: taken out where the rest still reads as a sentence, refused where it does not.

The rules are one table, applied from top to bottom. A rule whose replacement is None refuses the text. The time of a rule grows
with the length of the text, not with its square: from each place, a pattern looks at a bounded number of characters, or
goes on to where no other match begins.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Collection
from typing import NamedTuple

REASONING, TOOL_CALLS = "reasoning", "calls of tools"
_SPACE = "white space"
_MOST_AT_ALL = 1_000_000  # characters of a turn with its reasoning and calls of tools
_MOST_SAID = 10_000  # without them: 25 s of speech, and many characters of markup for each that is said
TOO_MANY = f"a turn of over {_MOST_SAID:,} characters"
_MOST_ROUNDS = 4  # what is taken out may leave something to take out: a heading inside a paragraph of HTML


class NotSpeech(Exception):
    """Why a text cannot be spoken, in words that are the same for every such text."""


class _Rule(NamedTuple):
    name: str  # of what is taken out, or the reason of a refusal
    pattern: re.Pattern[str]
    replacement: str | Callable[[re.Match[str]], str] | None


def _rule(name: str, pattern: str, replacement: str | Callable[[re.Match[str]], str] | None = None) -> _Rule:
    return _Rule(name, re.compile(pattern), replacement)


# ------------------------------------------------------------------ what language models and their tools write

_THOUGHT = "think|thinking|thoughts?|reasoning|reflection|scratchpad|analysis|antthinking"
_TOOL = "tool_calls?|tool_responses?|tool_results?|tool_code|tool_outputs?|function_?calls?|function_(?:response|result)s?"
_TOKEN = (
    r"(?:<\|[^|<>\n]{1,40}\|>|<｜[^｜<>\n]{1,40}｜>|</?s>|\[/?INST\]|<</?SYS>>|\[/?SYSTEM_PROMPT\]|<extra_id_\d+>|<0x[0-9A-F]{2}>"
    r"|\[(?:BOS|EOS|PAD|UNK|CLS|SEP|MASK)\]|(?i:<(?:bos|eos|pad|unk|mask|sep|cls|endoftext|(?:start|end)_of_turn)>))"
)
_ROLE = "(?i:user|human|assistant|model|system)"
_LABEL = r"(?i:user|human|assistant|agent|chatbot|chatgpt|bot|ai|speaker[ _]?\d{1,3})\s?:"
_MODEL_RULES = [
    _rule(TOO_MANY, rf"(?s)\A.{{{_MOST_AT_ALL + 1}}}"),
    _rule(REASONING, rf"(?is)<({_THOUGHT})\b[^<>]*>(?:(?!<\1\b).)*?</\1\s*>", " "),
    _rule(REASONING, rf"(?is)\A.*</(?:{_THOUGHT})\s*>", ""),  # DeepSeek's template opens it in the prompt
    _rule(REASONING, rf"(?is)<(?:{_THOUGHT})\b[^<>]*>.*\Z", ""),
    _rule(REASONING, r"(?s)<\|begin_of_thought\|>.*?(?:<\|end_of_thought\|>|\Z)", " "),
    _rule(REASONING, r"(?s)◁think▷.*?(?:◁/think▷|\Z)", " "),
    _rule(REASONING, r"(?s)(?:<\|start\|>assistant)?<\|channel\|>analysis<\|message\|>.*?(?:<\|end\|>|\Z)", " "),
    _rule(TOOL_CALLS, r"(?s)(?:<\|start\|>assistant)?<\|channel\|>commentary.*?(?:<\|call\|>|<\|end\|>|\Z)", " "),
    _rule(TOOL_CALLS, rf"(?is)<({_TOOL})\b[^<>]*>.*?(?:</\1\s*>|\Z)", " "),
    _rule(TOOL_CALLS, r"(?s)(?:\[TOOL_CALLS\]|<\|python_tag\|>).*", " "),
    _rule("tokens of chat templates", r"\A\s*(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>", ""),
    _rule("tokens of chat templates", rf"\A(?:\s*{_TOKEN}(?:\s*{_ROLE}(?=\s*?\n|\s*{_TOKEN}))?)+", ""),
    _rule("tokens of chat templates", rf"(?:{_TOKEN}\s*){{1,20}}\Z", ""),
    _rule("tokens of chat templates", r"<\|\d+(?:\.\d+)?\|>", ""),  # times of words
    _rule("several turns in one text", _TOKEN),
    _rule("several turns in one text", r"(?<=\S\s)(?:User|Human|Assistant|ChatGPT):\s"),
    _rule("labels of speakers", rf"\A\s*(?:\*\*|\#{{1,6}} )?{_LABEL}(?:\*\*)?(?=\s)", ""),
    _rule("several turns in one text", rf"(?m)^[^\S\n]*(?:\*\*|\#{{1,6}} )?{_LABEL}(?:\*\*)?(?=\s)"),
    _rule("several turns in one text", rf"(?m)^\#{{1,6}} (?:Instruction|Response|Input|Output):|\#\# ?{_LABEL}"),
    _rule(TOO_MANY, rf"(?s)\A.{{{_MOST_SAID + 1}}}"),
]

# ------------------------------------------------------------------ characters

_PICTURE = (
    "[\U0001f000-\U0001faff\u2600-\u27bf\u25a0-\u25ff\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u231a\u231b\u2328\u23cf\u23e9-\u23fa"
    "\u3030\u303d\ud83c-\ud83e]"  # the last: the first half of one that was cut
)
_EMOJI = f"{_PICTURE}[\u200d\ufe0e\ufe0f\u20e3\U000e0020-\U000e007f]*"
_INVISIBLE = (
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0d\ufeff\uffa0\U000e0100-\U000e01ef]"
)


_LATER = "[\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"  # any byte of a letter but its first, as Windows-1252 shows it


def _windows_1252(match: re.Match[str]) -> str:
    """What a character of U+0080 to U+009F was before it was read in the wrong encoding: U+0092 is an apostrophe."""
    return match[0].encode("latin-1").decode("cp1252", errors="ignore")


_SPACE_RULES = [
    _rule(_SPACE, r"[^\S\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]{2,}", lambda match: "\t" if "\t" in match[0] else " "),
    _rule(_SPACE, r"\s*[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]\s*", "\n"),
]
_CHARACTER_RULES = [
    _rule("control characters", "\x1b\\[[0-9;]*[A-Za-z]", ""),  # colours of a terminal
    _rule("control characters", "[\x80-\x9f]", _windows_1252),
    _rule("control characters", "[\x00-\x08\x0e-\x1f\x7f\ufdd0-\ufdef\ufffe\uffff]", ""),
    _rule("citations", "\ue200[^\ue200\ue201]*\ue201", ""),  # of ChatGPT
    _rule("control characters", "[\ue000-\uf8ff\U000f0000-\U0010fffd]", ""),  # private use: icons of a font
    _rule("invisible characters", _INVISIBLE, ""),
    _rule("invisible characters", "(?<![\u0600-\u1fff])[\u200c\u200d](?![\U0001f000-\U0001faff\u2600-\u27bf])", ""),
    # UTF-8 that was read as Windows-1252: of Latin letters one is enough, of other scripts two
    _rule("letters in a wrong encoding", f"[ÃÂ][\xa1-\xbf]|â€|(?:[Â-ß]{_LATER}){{2}}|(?:[à-ï]{_LATER}{{2}}){{2}}"),
    _rule(
        "letters of another font",
        "[\U0001d400-\U0001d7ff\u2460-\u24ff\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]",
        lambda match: unicodedata.normalize("NFKC", match[0]),
    ),
    _rule("a character that was lost", r"\w[\ufffd\ud800-\ud83b\ud83f-\udfff]|[\ufffd\ud800-\ud83b\ud83f-\udfff]\w"),
    _rule("lost characters", "[\ufffd\ud800-\ud83b\ud83f-\udfff]", ""),
    _rule("emoji", rf"[ \t]?{_EMOJI}(?=[.,;:!?)]|\s|\Z|{_PICTURE})|[\ufe0e\ufe0f\u20e3]", ""),
    _rule("emoji", _EMOJI, " "),
]
# ------------------------------------------------------------------ HTML, Markdown, LaTeX

_BLOCKS = "address|article|blockquote|br|center|dd|div|dl|dt|footer|h[1-6]|header|hr|li|main|nav|ol|p|section|ul"
_INLINE = (
    "a|abbr|acronym|answer|b|big|body|break|cite|code|del|details|dfn|em|emphasis|font|head|html|i|ins|kbd|label"
    "|mark|output|prosody|q|response|say-as|small|solution|speak|span|strike|strong|sub|summary|sup|time|title|tt|u"
    "|var|voice|wbr"
)
_ATTRIBUTES = r"""(?:\s+[\w:@.-]+(?:\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'=<>`]+))?)*\s*/?"""
_URL = r"<?(?:(?i:https?|ftp)://|(?<![A-Za-z0-9])www\.|\bmailto:)[^\s<>]{0,1000}[^\s<>.,;:!?)\]}'\"*_]>?"
_CITATION = r"【[^【】†]*†[^【】]*】|\[\^[\w-]+\]|\[[1-9]\d{0,2}(?:\s*[,–-]\s*[1-9]\d{0,2})*\](?!\()|\[citation needed\]"
_FORMULA = (
    r"\$\$|\\[()\[\]]|\\[a-zA-Z]+\{|\\(?:begin|sum|int|prod|lim|cdot|times|alpha|beta|pi|leq?|geq?|neq?)\b"
    r"|(?i:<su[bp]\b[^<>]*>\s*[-+−]?\d)"
    r"|(?<![\w$])\$(?=\S)(?:[^$\n\\^_={}+]*[\\^_={}+][^$\n]*|[A-Za-z])(?<=\S)\$(?![\w$])"
    r"|\d\s*[*^]\s*\(?\d|[\u2200-\u22ff\u2a00-\u2aff]"
)
_CODE = (
    r"```|~~~|(?i:<(?:pre|script|style|svg|math|iframe|object|form)\b)|(?m:^[^\S\n]*(?:def|class) \w+.*:\s*$)"
    r"|\w\(\)|[a-z_]\(\d|\w\([\"']"
    r"|(?<!\S)(?:~|\.{1,2})?/[\w.-]+/[\w.-]"
    r"|(?m:^[^\S\n]*(?:import [\w.]+|from [\w.]+ import .*|\#include.*)$)|[=!]=|&&|\|\||\[code\]"
)


def _words_of_code(match: re.Match[str]) -> str:
    if not re.fullmatch(r"[\w .,'’-]+", match[2]):
        raise NotSpeech("code")
    return match[2]


_MARKUP_RULES = [
    _rule("HTML", r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});", lambda match: html.unescape(match[0])),
    _rule("HTML", r"(?s)<!--(?:(?!<!--).)*?-->", ""),
    _rule(
        "an image, a sound or a file", r"(?i)!\[[^\[\]]*\]\([^()]*\)|<(?:img|image|audio|video|picture|speech|file)\b[^<>]*>"
    ),
    _rule(
        "a table",
        r"(?i)<table\b|(?m:^[ \t]*\|?[ \t]*:?-{2,}:?[ \t]*\|)|(?m:^[ \t]*\|.*\|[ \t]*$)|[\u2500-\u257f]"
        r"|(?m:^[^\t\n]*\S\t+\S.*\n[^\t\n]*\S\t+\S)",
    ),
    _rule("escapes", r"(?<![A-Za-z]:)(?<!\\)(?:\\r)?\\n(?![a-z]{2})", "\n"),  # escaped twice
    _rule("escapes", r"\\(?=['\"])", ""),
    _rule("Markdown", r"(?m)^[ \t]{0,3}(?:(?:[-*_][ \t]*){3,}|=[= \t]{2,})$", ""),  # rules across the page
    _rule("a formula", _FORMULA),
    _rule("code", _CODE),
    _rule("Markdown", r"(?<=[a-z])`(?=(?:t|s|re|ve|ll|d|m)\b)", "'"),
    _rule("Markdown", r"(?<!`)(`{1,3})(?!`)\s*([^`]+?)\s*\1", _words_of_code),
    _rule("HTML", rf"(?i)</?(?:{_BLOCKS})\b{_ATTRIBUTES}>", "\n"),
    _rule("HTML", rf"(?i)</?(?:{_INLINE}){_ATTRIBUTES}>", ""),
    _rule("Markdown", rf"(?m)^[ \t]{{0,3}}\[[^\]]+\]:[ \t]*{_URL}.*$", ""),  # where a link leads
    _rule("citations", r"(?m)^[ \t]{0,3}\[\^[\w-]+\]:.*$", ""),
    _rule("Markdown", r"""\[([^\[\]]+)\]\((?:[^()\s]|\([^()]*\))*(?:\s+["'][^"']*["'])?\)""", r"\1"),
    _rule("Markdown", r"\[(?![\d,\s–-]+\])([^\[\]]+)\] ?\[[^\[\]]*\]", r"\1"),
    _rule("citations", rf"\s{{0,2}}(?:{_CITATION})", ""),
    _rule("URLs", rf"\s{{0,2}}\({_URL}\)", ""),
    _rule("URLs", rf"(?m)(?:^|(?<=[.!?]))[ \t]*{_URL}[ \t]*$", ""),
    _rule("a URL inside a sentence", _URL),
    _rule("Markdown", r"(?m)^[ \t]{0,3}\#{1,6}(?:[ \t]+|$)|[ \t]+\#+[ \t]*$", ""),
    _rule("Markdown", r"(?m)^[ \t]*(?:>[ \t]?)+", ""),
    _rule("Markdown", r"(?m)^[ \t]*[-*+•‣–—](?:[ \t]+|$)(?:\[[ xX]\][ \t]+)?", ""),
    _rule("Markdown", r"(?<![\w*])(\*{1,3})(?=[^\s*])([^\n]{1,500}?)(?<=[^\s*])\1(?![\w*])", r"\2"),
    _rule("Markdown", r"(?<!\w)(_{1,3})(?=[^\s_])([^\n]{1,500}?)(?<=[^\s_])\1(?!\w)", r"\2"),
    _rule("Markdown", r"~~(?=\S)([^\n]{1,500}?)(?<=\S)~~", r"\1"),
    _rule("Markdown", r"\*\*+|(?<=\w)\*(?!\w)|(?<![\w*])\*(?=\w)", ""),
    _rule("Markdown", r"\\([*_`~#+.!>-])", r"\1"),
    _rule("symbols", r"\s{0,2}[©®™℠†‡]|\s{0,2}\(\s{0,2}\)", ""),
    _rule("symbols", "[•‣]", " "),
    _rule("emoji", r"(?<!\S)(?::[a-z][a-z0-9_+-]+:|[:;]['’]?[-o]?[()DPp|/\]]+|=[()]|<3+|\^_?\^)(?=[\s.,!?]|\Z)", ""),
]
_LEFT_OVER_RULES = [
    _rule("a placeholder or a tag", r"(?<![\d%])%(?:\(\w+\))?[sd]\b|</?[a-zA-Z][^<>\n]*>|\[[^\[\]]*\]|__+"),
    _rule("symbols that nobody says", r"[{}\[\]\\|<>^`*~\u2190-\u21ff\u27f0-\u27ff\u2900-\u297f]"),
]
# Names of the rules that leave something out, by the words of the configuration.
_NAMES_OF = {"code": ("code",), "tables": ("a table",), "urls": ("URLs", "a URL inside a sentence")}
_RULES = [*_SPACE_RULES, *_MODEL_RULES, *_CHARACTER_RULES, *_MARKUP_RULES, *_LEFT_OVER_RULES]
# Most texts: no rule changes one of these characters alone. It saves nine tenths of the time.
_PLAIN = re.compile(r"(?:[0-9A-Za-zÀ-ɏ .,!?'’\"]|(?<=\w)-(?=\w))*")


def without_markup(text: str, allowed: Collection[str] = ()) -> tuple[str, list[str]]:
    """`text` without what nobody says, and the kinds of what was taken out, in order; line ends are still in it.

    Args:
        text: of one turn.
        allowed: of `code`, `tables` and `urls`: what stays as it is written.

    Raises:
        NotSpeech: if what is left would be no sentence.
    """
    if len(text) <= _MOST_SAID and _PLAIN.fullmatch(text) and "www." not in text:
        return text, []
    kinds: list[str] = []
    off = {name for kind in allowed for name in _NAMES_OF[kind]}
    for _ in range(_MOST_ROUNDS):
        first = text
        for name, pattern, replacement in _RULES:
            if name in off:
                continue
            if replacement is None:
                if pattern.search(text):
                    raise NotSpeech(name)
                continue
            before, text = text, pattern.sub(replacement, text)
            if text != before and name != _SPACE:
                kinds.append(name)
        if text == first:
            break
    return text, kinds
