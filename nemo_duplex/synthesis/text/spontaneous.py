"""What people say that is no turn, by language: hesitations, backchannels, and talk to somebody else.

Few and short, because a slow voice says each of them once and a bank keeps it. A language without an entry has none of them.
"""

from __future__ import annotations

from nemo_duplex.synthesis.tts.languages import language_of

Phrases = dict[str, tuple[str, ...]]

#: Sounds of somebody who goes on in a moment. They are no words, and recognisers leave them out.
HESITATION_SOUNDS: Phrases = {
    "en": ("um", "uh", "er"),
    "de": ("ähm", "äh"),
    "fr": ("euh",),
    "es": ("eh", "em"),
    "it": ("ehm", "eh"),
    "pt": ("hum", "é"),
}
#: Words that do the same.
HESITATION_WORDS: Phrases = {
    "en": ("let me think", "let me see", "you know", "how do I say this", "what was it", "I mean"),
    "de": ("lass mich überlegen", "wie soll ich sagen", "wie war das", "also"),
    "fr": ("voyons", "attends", "comment dire"),
    "es": ("a ver", "déjame pensar", "cómo se dice"),
    "it": ("vediamo", "fammi pensare", "come si dice"),
    "pt": ("deixa eu ver", "como se diz"),
}
#: What a listener says to show that the other should go on (Yngve 1970).
BACKCHANNELS: Phrases = {
    "en": ("yeah", "right", "okay", "uh-huh", "mm-hmm", "I see", "sure", "yes", "oh"),
    "de": ("ja", "genau", "okay", "aha", "mhm", "verstehe", "klar"),
    "fr": ("oui", "d'accord", "ok", "je vois", "mhm"),
    "es": ("sí", "claro", "vale", "ya veo", "mhm"),
    "it": ("sì", "certo", "okay", "capisco", "mhm"),
    "pt": ("sim", "certo", "claro", "entendi", "mhm"),
}
#: Talk to somebody else in the room, or to somebody on another line.
SIDE_TALK: Phrases = {
    "en": (
        "Can you close the door, please?", "No, not now.", "I will be there in a minute.", "Put it on the table.",
        "Hold on, I am on the phone.", "Who is at the door?", "Did you feed the dog?", "Yes, dinner is ready.",
        "Turn the music down.", "I will call you back later.", "Where did you leave the keys?", "Not that one, the other one.",
        "Thanks, just leave it there.", "Come in, it is open.", "Have you seen my glasses?", "We have to leave at six.",
        "Be quiet, I am talking.", "That is fine with me.", "What time is the meeting?", "Could you bring me some water?",
        "Stop that, please.", "I have no idea where he is.", "Ask your mother.", "Wait a second, I am coming.",
    ),
    "de": ("Mach bitte die Tür zu.", "Nein, jetzt nicht.", "Ich komme gleich.", "Leg es auf den Tisch.", "Wer ist da?"),
    "fr": ("Ferme la porte, s'il te plaît.", "Non, pas maintenant.", "J'arrive tout de suite.", "Qui est là?"),
    "es": ("Cierra la puerta, por favor.", "No, ahora no.", "Ya voy.", "Déjalo en la mesa.", "¿Quién es?"),
    "it": ("Chiudi la porta, per favore.", "No, non adesso.", "Arrivo subito.", "Chi è?"),
    "pt": ("Feche a porta, por favor.", "Não, agora não.", "Já vou.", "Quem é?"),
}  # fmt: skip


def phrases_for(phrases: Phrases, text: str, language: str | None) -> tuple[str, ...]:
    """The phrases in the language of a text.

    Args:
        phrases: one of the tables above.
        text: that is in the language.
        language: a tag such as `de-AT`; None: the one of the text's script, English for Latin letters.
    """
    code = language_of(text, "en") if language is None else language
    return phrases.get(code.lower().split("-")[0], ())
