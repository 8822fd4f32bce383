// One sound plays at a time. Of one utterance, another codec goes on where the last one was; a click in a picture moves there.
document.querySelectorAll(".utterance").forEach((card) => {
  const voices = [...card.querySelectorAll(".voice")];
  const audioOf = (voice) => voice.querySelector("audio");
  let place = 0;

  const play = (voice, at) => {
    document.querySelectorAll("audio").forEach((other) => other.pause());
    const audio = audioOf(voice);
    audio.currentTime = at;
    audio.play();
  };
  const toggle = (voice) => (audioOf(voice).paused ? play(voice, place) : audioOf(voice).pause());

  voices.forEach((voice) => {
    const audio = audioOf(voice);
    const sight = voice.querySelector(".sight");
    const draw = () => {
      if (audio.paused) {
        return;
      }
      place = audio.currentTime;
      card.style.setProperty("--at", `${(100 * place) / (audio.duration || 1)}%`);
      requestAnimationFrame(draw);
    };
    voice.querySelector(".play").addEventListener("click", () => toggle(voice));
    sight.addEventListener("click", (event) => {
      const box = sight.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      const go = () => play(voice, share * audio.duration);
      if (audio.duration) {
        go();
      } else {
        audio.addEventListener("loadedmetadata", go, { once: true });
        audio.load();
      }
    });
    audio.addEventListener("play", () => {
      voice.classList.add("playing");
      card.classList.add("heard");
      draw();
    });
    audio.addEventListener("pause", () => {
      place = audio.ended ? 0 : audio.currentTime;
      voice.classList.remove("playing");
    });
  });
  card.addEventListener("keydown", (event) => {
    const voice = /^[1-9]$/.test(event.key) ? voices[Number(event.key) - 1] : undefined;
    if (voice && !event.ctrlKey && !event.metaKey && !event.altKey) {
      toggle(voice);
      event.preventDefault();
    }
  });
});
