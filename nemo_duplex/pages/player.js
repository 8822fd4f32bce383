// One conversation plays at a time; the line in its picture follows the sound. A click in the picture moves it, as do the keys in
// it: left and right by a second, Home to the start, the space bar plays and pauses.
document.querySelectorAll(".conversation").forEach((card) => {
  const audio = card.querySelector("audio");
  const picture = card.querySelector(".picture");
  const drawing = card.querySelector(".timeline");
  const head = card.querySelector(".playhead");
  const left = Number(drawing.dataset.left);
  const scale = Number(drawing.dataset.scale);

  const draw = () => {
    const x = left + audio.currentTime * scale;
    head.setAttribute("x1", x);
    head.setAttribute("x2", x);
    if (!audio.paused) {
      if (x > picture.scrollLeft + picture.clientWidth * 0.85 || x < picture.scrollLeft) {
        picture.scrollLeft = x - picture.clientWidth * 0.15;
      }
      requestAnimationFrame(draw);
    }
  };
  const show = (state) => {
    card.classList.toggle("playing", state === "playing");
    card.classList.toggle("paused", state === "paused");
  };

  card.querySelector(".play").addEventListener("click", () => (audio.paused ? audio.play() : audio.pause()));
  picture.addEventListener("click", (event) => {
    audio.currentTime = Math.max(0, (event.clientX - drawing.getBoundingClientRect().left - left) / scale);
    audio.play();
  });
  picture.addEventListener("keydown", (event) => {
    const seconds = new Map([["ArrowLeft", -1], ["ArrowRight", 1], ["Home", -Infinity]]);
    if (event.key === " ") {
      audio.paused ? audio.play() : audio.pause();
    } else if (seconds.has(event.key)) {
      audio.currentTime = Math.max(0, audio.currentTime + seconds.get(event.key));
    } else {
      return;
    }
    event.preventDefault();
    show(audio.paused ? "paused" : "playing");
    draw();
  });
  audio.addEventListener("play", () => {
    document.querySelectorAll("audio").forEach((other) => other !== audio && other.pause());
    show("playing");
    draw();
  });
  audio.addEventListener("pause", () => show("paused"));
  audio.addEventListener("ended", () => show("stopped"));
});
