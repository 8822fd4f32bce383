"""The openai package without asyncio: `OpenAI().realtime.connect()`; one question in one append, events until it is answered.

Job: base_url, key, audio (pcm16 at 24 kHz), session. Reports: events.
"""

from __future__ import annotations

import base64
from pathlib import Path

import openai
from call import job, report

task = job()
client = openai.OpenAI(base_url=task["base_url"], api_key=task["key"])
events = []
with client.realtime.connect(model="duplex") as connection:
    connection.session.update(session=task["session"])
    connection.input_audio_buffer.append(audio=base64.b64encode(Path(task["audio"]).read_bytes()).decode())
    for event in connection:
        events.append(event.to_dict())
        if event.type in ("response.done", "error"):
            break
report(events=events)
