// Progressive enhancement only: without this script the page shows everything all the same.
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
for (const figure of document.querySelectorAll(".slides")) {
  const slides = [...figure.querySelectorAll("li")];
  const [slider, output, button] = ["input", "output", "button"].map((name) => figure.querySelector(name));
  let timer = 0;
  const show = (index) => {
    slides.forEach((slide, place) => slide.classList.toggle("now", place === index));
    slider.value = index;
    output.value = slides[index].querySelector("span").textContent;
    slider.setAttribute("aria-valuetext", output.value);
  };
  const stop = () => { clearInterval(timer); timer = 0; button.textContent = "Play"; };
  const step = () => {
    const next = Number(slider.value) + 1;
    next < slides.length ? show(next) : stop();
  };
  button.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(slider.value) === slides.length - 1) show(0);
    button.textContent = "Pause";
    timer = setInterval(step, Math.max(180, Math.min(700, 9000 / slides.length)));
  });
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  figure.classList.add("live");
  show(slides.length - 1);
}
// Loops play while they are on screen.
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    isIntersecting ? target.play().catch(() => {}) : target.pause();
  }
}, { threshold: 0.4 });
if (!calm) document.querySelectorAll("video").forEach((video) => watcher.observe(video));
