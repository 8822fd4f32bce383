// One conversation plays at a time; the line in its picture follows the sound, and a click in the picture moves it.
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
  audio.addEventListener("play", () => {
    document.querySelectorAll("audio").forEach((other) => other !== audio && other.pause());
    show("playing");
    draw();
  });
  audio.addEventListener("pause", () => show("paused"));
  audio.addEventListener("ended", () => show("stopped"));
});
