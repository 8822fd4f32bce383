// What can go wrong, in words: what happened, and what helps. Pure.

const problem = (title, cure, more = {}) => ({ title, cure, ...more });

/** What this browser lacks; null if nothing. `world` is the window. */
export function lacking(world) {
  if (!world.isSecureContext) {
    return problem(
      "The browser allows no microphone on this address.",
      "It must begin with https://, or be http://localhost. Ask who runs the server for TLS, or open the page on the server's own machine.",
    );
  }
  if (!world.AudioContext || !world.AudioWorkletNode) {
    return problem("This browser cannot play and record live sound.", "It has no AudioWorklet. Update it, or use a current Chrome, Edge, Firefox or Safari.");
  }
  return null;
}

/** Why there is no microphone, from the error of `getUserMedia`. */
export function ofMicrophone({ name, message }) {
  const cures = {
    NotAllowedError: ["The microphone is blocked.", "Allow it for this page: the icon beside the address, or the browser's settings for this site. Then start again."],
    NotFoundError: ["No microphone was found.", "Plug one in and start again, or choose an audio file as the caller."],
    NotReadableError: ["The microphone is in use.", "Another program holds it, or the system does not hand it over. Close that program and start again."],
    OverconstrainedError: ["The chosen microphone is gone.", "Choose another one and start again."],
  };
  cures.SecurityError = cures.NotAllowedError;
  cures.AbortError = cures.NotReadableError;
  const [title, cure] = cures[name] ?? ["The microphone cannot be used.", `The browser says: ${message || name}`];
  return problem(title, cure);
}

export function ofFile(name) {
  return problem(`“${name}” cannot be read as audio.`, "Choose a WAV, MP3, M4A, Ogg or FLAC file that this browser can play.");
}

/**
 * Why the server takes no call, from what `askServer` returns. `again`: seconds until another try makes sense; `key`: whether a
 * key is asked for.
 */
export function ofServer({ status, message, retryAfter }, keyGiven) {
  if (status === 0) return problem("The server cannot be reached.", "Check the network, and that the server runs.", { again: 0 });
  if (status === 401) {
    return keyGiven
      ? problem("The server does not know this key.", "Check it and try again.", { key: true })
      : problem("This server asks for a key.", "Enter the key that you were given.", { key: true });
  }
  if (status === 503 && /drain|shut/i.test(message)) {
    return problem("The server is shutting down.", "It takes no new calls. Another try follows.", { again: retryAfter ?? 5 });
  }
  if (status === 503) return problem("The server is full.", message || "All lines are busy.", { again: retryAfter ?? 5 });
  if (status === 429) return problem("Too many calls from here.", message || "End another call first.", { again: retryAfter });
  if (status === 403) return problem("The server does not allow calls from this page.", message || "Open the page on the server's own address.");
  return problem("The server refused the call.", message || `It answered with status ${status}.`);
}

/** Why a call ended, from the server's reason; `again`: whether to connect again. */
export function ofEnd(reason) {
  const ends = {
    too_long: problem("The call reached its longest duration.", "Start another one whenever you like."),
    idle: problem("The call ended: no sound came from here for too long.", "Check the microphone and start again."),
    slow: problem("The connection was too slow for the call.", "", { again: true }),
    drained: problem("The server is shutting down.", "", { again: true }),
    failed: problem("The agent failed.", "", { again: true }),
  };
  return ends[reason] ?? null;
}
