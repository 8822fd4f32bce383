"""The numbers of the paper (SALM-Duplex, Interspeech 2025), tables 2 to 4: shown in grey beside measured ones, never mixed.

They are of its own models, test sets, voices and scorers. None: the paper says "n/a".
"""

from __future__ import annotations

from collections.abc import Mapping

#: Shares are 0 to 1, latencies Seconds, bitrates kbit/s, CER in percent, as far as they are such.
Row = Mapping[str, float | None]

#: Turn-taking and speech quality: set -> system -> row.
TABLE_2: Mapping[str, Mapping[str, Row]] = {
    "UltraChat": {
        "SALM-Duplex": {
            "success_rate": 0.83,
            "false_alarm_rate": 0.0,
            "mean_stop_latency": 0.52,
            "first_response_latency": 0.72,
            "utmos": 4.3,
        },
        "Moshi": {
            "success_rate": 0.56,
            "false_alarm_rate": 0.0,
            "mean_stop_latency": 0.63,
            "first_response_latency": None,
            "utmos": 3.9,
        },
    },
    "Impatient": {
        "SALM-Duplex": {
            "success_rate": 0.945,
            "false_alarm_rate": 0.0,
            "mean_stop_latency": 0.69,
            "first_response_latency": 0.92,
            "utmos": 4.0,
        },
        "Moshi": {
            "success_rate": 0.551,
            "false_alarm_rate": 0.0,
            "mean_stop_latency": 0.81,
            "first_response_latency": None,
            "utmos": 3.8,
        },
    },
}
#: Share of user turns that interrupt in the Impatient set (section 5.2).
INTERRUPTION_RATE: Row = {"SALM-Duplex": 0.954, "Moshi": 0.967}

#: Reasoning: GPT scores, 0 to 10; GT+LLM is the backbone alone, given the true text of the user.
TABLE_3: Mapping[str, Row] = {
    "SALM-Duplex": {"UltraChat": 3.5, "Roleplay": 4.6, "Topic": 6.1, "ASR-QA": 7.8, "Alpaca": 2.9},
    "Moshi": {"UltraChat": 3.4, "Roleplay": 1.7, "Topic": 2.8, "ASR-QA": 1.9, "Alpaca": 1.7},
    "GT+LLM": {"UltraChat": 6.4, "Roleplay": 4.9, "Topic": 5.5, "ASR-QA": 5.8, "Alpaca": 5.0},
}

#: Codecs: what reconstruction keeps, and the ASR-BLEU of an agent that speaks with them.
TABLE_4: Mapping[str, Row] = {
    "Mimi": {"kbps": 1.1, "mos": 4.16, "cer": 3.00, "secs": 0.65, "asr_bleu": None},
    "NanoCodec 1.2": {"kbps": 1.2, "mos": 4.67, "cer": 1.44, "secs": 0.77, "asr_bleu": 18.1},
    "NanoCodec 0.6": {"kbps": 0.6, "mos": 4.54, "cer": 3.55, "secs": 0.57, "asr_bleu": 16.2},
    "NanoCodec 0.6, personalized": {"kbps": 0.6, "mos": 4.75, "cer": 1.36, "secs": 0.94, "asr_bleu": 18.7},
}
#: What made the paper's numbers (sections 5.2 and 6.3).
SCORERS: Mapping[str, str] = {
    "utmos": "UTMOS on the agent's speech, silence removed",
    "gpt_score": "gpt-4o-mini-2024-07-18 on transcripts by parakeet-tdt_ctc-110m",
    "mos": "Torchaudio-Squim",
    "cer": "MMS",
    "secs": "ECAPA2",
    "asr_bleu": "parakeet-tdt_ctc-110m",
}
