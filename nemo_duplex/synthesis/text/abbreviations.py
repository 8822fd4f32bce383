"""Abbreviations and symbols of English texts, and what is said for them."""

from __future__ import annotations

import re

_TITLES = {
    "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Dr": "Doctor", "Prof": "Professor",
    "Gov": "Governor", "Sen": "Senator", "Rep": "Representative", "Gen": "General", "Capt": "Captain", "Lt": "Lieutenant",
    "Sgt": "Sergeant", "Rev": "Reverend", "Mt": "Mount", "Ft": "Fort",
}  # fmt: skip
_WORDS = {
    "vs": "versus", "etc": "et cetera", "approx": "approximately", "e.g": "for example", "i.e": "that is", "No": "number",
    "no": "number", "a.k.a": "also known as", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Inc": "Incorporated",
    "Ltd": "Limited", "Co": "Company", "Corp": "Corporation", "dept": "department", "Dept": "Department", "est": "estimated",
    "w/o": "without", "w/": "with ", "Jr": "Junior", "Sr": "Senior",
}  # fmt: skip
_SIGNS = {
    "&": "and", "@": "at", "%": "percent", "+": "plus", "=": "equals", "#": "hashtag", "/": "slash", "°": "degrees",
    "$": "dollars", "€": "euros", "£": "pounds", "¥": "yen", "×": "times", "÷": "divided by", "±": "plus or minus",
    "≈": "about", "~": "about", "_": "underscore", "√": "square root of", "²": "squared", "³": "cubed", "π": "pi",
    "µ": "micro", "§": "section",
}  # fmt: skip

#: Whose Roman numeral is "the eighth".
RULERS = "King|Queen|Pope|Emperor|Tsar|Louis|Henry|Edward|George|Charles|James|William|Elizabeth|Richard|Philip|Pius"
#: What stands before a Roman numeral.
BEFORE_ROMAN = (
    "War|Chapter|Part|Volume|Vol|Act|Scene|Type|Phase|Book|Article|Section|Level|Stage|Title|Bowl|Fantasy|Appendix|Figure|"
    + RULERS
)
#: An abbreviation with its full stop.
ABBREVIATION = re.compile(
    rf"(?<![\w.@/-])(?:(?P<title>{'|'.join(_TITLES)})\.(?=\s[A-Z])"
    r"|(?P<street>(?<=[a-z0-9,] )(?!Mount|Fort|Lake|Port|Mt|Ft)[A-Z]\w+ )(?P<st>St|Ave|Blvd|Rd|Dr)\.(?=\W|\Z)"
    r"|(?P<saint>St)\.(?=\s[A-Z])|(?P<number>[Nn]o)\.(?=\s?\d)"
    r"|(?P<word>vs|etc|approx|e\.g|i\.e|a\.k\.a|[Dd]ept|Inc|Ltd|Corp|Jr|Sr)\.(?!\w)|(?P<short>w/o|w/)(?=\s|\w))"
)
#: A symbol that is said as a word.
SYMBOL = re.compile(
    rf"\s*(?P<both>\band/or\b)|\s*(?P<sign>[{re.escape(''.join(_SIGNS))}])\s*"
    r"|(?<=\w)(?P<dot>\.)(?=(?:com|org|net|edu|gov|io|uk|de|eu|info)\b)"
)

# Words that begin a sentence and no name.
_BEGINS = (
    "He|She|It|They|We|You|I|The|A|An|This|That|These|Those|His|Her|Its|Their|My|Our|Your|There|And|But|So|As|In|On|At|By|For|"
    "From|After|Before|When|While|If|Was|Were|Is|Are|Did|Do|Does|Has|Have|Had|Can|Could|Will|Would|What|Who|Why|How|Where|Yes|No"
)
# What stands before "No." as an answer, and not before a number's "No.".
_END_OF_SENTENCE = re.compile(r"(?:[?!]|(?<!\bvs)(?<!\betc)(?<!\be\.g)(?<!\bi\.e)\.)[\"'”’)]*\s\Z")


def written_out(match: re.Match[str]) -> str:
    """The words for a match of `ABBREVIATION` or `SYMBOL`."""
    kind = match.lastgroup
    text = match[0]
    if kind == "title":
        return _TITLES[text[:-1]]
    if kind == "st":
        return match["street"] + {"St": "Street", "Dr": "Drive"}.get(match["st"], _WORDS.get(match["st"], "")) + _stop(match)
    if kind == "dot":
        return " dot "
    if kind == "saint":
        return "Saint"
    if kind == "both":
        return " and or"
    if kind == "sign":
        return f" {_SIGNS[match['sign']]} "
    if kind == "number" and text[0] == "N" and _END_OF_SENTENCE.search(match.string, 0, match.start()):
        return text
    if kind == "short":
        return _WORDS[text]
    return _WORDS.get(text.rstrip("."), text) + ("" if kind == "number" else _stop(match))


def _stop(match: re.Match[str]) -> str:
    """The full stop of an abbreviation, where it ends the sentence too."""
    if match["word"] in ("e.g", "i.e", "vs"):
        return ""
    following = rf"(?:{_BEGINS})\b" if match["word"] in ("Jr", "Sr") else "[A-Z]"  # "King Jr. Day"
    return "." if re.match(rf"\s*\Z|\s+{following}", match.string[match.end() :]) else ""
