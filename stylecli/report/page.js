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
  figure.querySelector("ol").removeAttribute("tabindex"); // nothing to scroll any more
  show(slides.length - 1);
}
// Pointing at a chart reads its curves off: the values stand beside their names.
for (const chart of document.querySelectorAll("svg.chart[data-scales]")) {
  const [left, right, xLow, xHigh, base, top, yLow, yHigh, log] = chart.dataset.scales.split(" ").map(Number);
  const keys = [...chart.closest("figure").querySelectorAll(".key")];
  const unit = chart.querySelector(".axis").textContent.split(" ")[0];
  const readouts = keys.map((key) => key.appendChild(document.createElement("b")));
  const place = chart.closest("figure").querySelector(".chart-head em").appendChild(document.createElement("b"));
  const cursor = chart.appendChild(document.createElementNS(chart.namespaceURI, "path"));
  cursor.setAttribute("class", "cursor");
  let curves = null;
  const parse = (path) => {
    let [x, y] = [0, 0];
    return [...path.getAttribute("d").matchAll(/([MLHV])([\d.]+)(?: ([\d.]+))?/g)].map(([, kind, a, b]) => {
      if (kind === "V") y = Number(a); else x = Number(a);
      if (b !== undefined) y = Number(b);
      return [x, y];
    });
  };
  const value = (y) => {
    const share = (base - y) / (base - top);
    return log ? yLow * (yHigh / yLow) ** share : yLow + share * (yHigh - yLow);
  };
  const short = (number) => String(Number(number.toPrecision(3)));
  const clear = () => {
    cursor.setAttribute("d", "");
    [...readouts, place].forEach((word) => { word.textContent = ""; });
  };
  chart.addEventListener("pointermove", (event) => {
    curves ??= [...chart.querySelectorAll("path.line")].map(parse);
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse()).x;
    if (at < left || at > right) return clear();
    const all = curves.flat();
    if (!all.length) return;
    const nearest = (points) => points.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a));
    const x = nearest(all)[0];
    curves.forEach((points, index) => {
      const point = points.findLast(([px]) => px === x) ?? (points.length ? nearest(points) : null);
      const near = point && Math.abs(point[0] - x) < (right - left) / 20;
      readouts[index].textContent = near ? ` ${short(value(point[1]))}` : "";
    });
    cursor.setAttribute("d", `M${x} ${top}V${base}`);
    place.textContent = ` at ${short(xLow + ((x - left) / (right - left)) * (xHigh - xLow))} ${unit}`;
  });
  chart.addEventListener("pointerleave", clear);
}
// Loops play while they are on screen.
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    isIntersecting ? target.play().catch(() => {}) : target.pause();
  }
}, { threshold: 0.4 });
if (!calm) document.querySelectorAll("video").forEach((video) => watcher.observe(video));
