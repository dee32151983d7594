// Curves of a run as SVG: the report's charts (stylecli/report/charts.py), drawn again as they grow.

import { h } from "./parts.js";

const SVG = "http://www.w3.org/2000/svg";
const [LEFT, RIGHT, TOP, BOTTOM] = [50, 10, 26, 44];
const [WIDTH, HEIGHT] = [430, 236];
const COLOURS = 6;
const MOST = 600; // points: longer curves are averaged into as many

function s(tag, attributes, text) {
	const element = document.createElementNS(SVG, tag);
	for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
	if (text !== undefined) element.textContent = text;
	return element;
}

// Round numbers that enclose low to high, about `count` of them.
export function roundTicks(low, high, count = 5) {
	const raw = (high - low) / count;
	const size = 10 ** Math.floor(Math.log10(raw));
	const step = [1, 2, 2.5, 5, 10].map((factor) => factor * size).find((each) => each >= raw * 0.999);
	const first = Math.floor(low / step + 1e-9);
	return Array.from({ length: Math.ceil(high / step - 1e-9) - first + 1 }, (_, place) =>
		Number(((first + place) * step).toPrecision(12)),
	);
}

export function tickText(value) {
	if (Math.abs(value) >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
	if (Math.abs(value) >= 1e4) return `${Number((value / 1e3).toPrecision(4))}k`;
	return String(Number(value.toPrecision(6)));
}

// The range that values are shown in; `clip` leaves rare far ones out.
function limits(values, clip) {
	const sorted = [...values].sort((a, b) => a - b);
	let [low, high] = [sorted[0], sorted.at(-1)];
	const rare = Math.ceil(sorted.length * 0.02);
	if (clip && sorted.length >= 20) {
		const [middle, below, above] = [sorted[sorted.length >> 1], sorted[rare], sorted.at(-1 - rare)];
		if (high - middle > 10 * (above - middle) && above > middle) high = above + 0.15 * (above - below);
		if (middle - low > 10 * (middle - below) && middle > below) low = below - 0.15 * (above - below);
	}
	if (high - low <= 1e-9 * Math.abs(high)) return high === 0 ? [0, 1] : high > 0 ? [0, 1.25 * high] : [1.25 * low, 0];
	if (low > 0 && low < 0.5 * high) low = 0;
	return [low, high];
}

// Powers of ten, with 2 and 5 between where there is room, that enclose the values.
function logTicks(values) {
	const [low, high] = [Math.min(...values), Math.max(...values)];
	const steps = high / low < 200 ? [1, 2, 5] : [1];
	const marks = [];
	for (let power = Math.floor(Math.log10(low)) - 1; power <= Math.floor(Math.log10(high)) + 1; power += 1) {
		marks.push(...steps.map((step) => Number(`${step}e${power}`)));
	}
	const first = marks.findLastIndex((mark) => mark <= low);
	const last = marks.findIndex((mark) => mark >= high);
	return marks.slice(first, Math.max(last, first + 1) + 1);
}

function runningMean(values, window) {
	const half = Math.floor(window / 2);
	if (window <= 1) return values;
	return values.map((value, place) => {
		const near = values.slice(Math.max(0, place - half), place + half + 1).filter((each) => each !== null);
		return value === null ? null : near.reduce((sum, each) => sum + each, 0) / near.length;
	});
}

function thinned(points) {
	if (points.length <= MOST) return points;
	const size = points.length / MOST;
	return Array.from({ length: MOST }, (_, place) => {
		const part = points.slice(Math.floor(place * size), Math.floor((place + 1) * size));
		const known = part.filter(([, y]) => y !== null);
		const mean = (axis, from) => from.reduce((sum, point) => sum + point[axis], 0) / from.length;
		return known.length ? [mean(0, known), mean(1, known)] : [part[0][0], null];
	});
}

function pathOf(points, x, y, steps) {
	let path = "";
	let open = false;
	for (const [px, py] of points) {
		if (py === null) {
			open = false;
			continue;
		}
		const at = `${x(px).toFixed(1)} ${y(py).toFixed(1)}`;
		path += open ? (steps ? `H${x(px).toFixed(1)}V${y(py).toFixed(1)}` : `L${at}`) : `M${at}h0`;
		open = true;
	}
	return path;
}

// A figure with the chart, its keys and caption. Pointing at it reads the values off.
export function chartFigure(chart) {
	const fits = (value) => value !== null && (value > 0 || !chart.log_y);
	const lines = chart.lines
		.map((line) => ({ ...line, ys: line.ys.map((value) => (fits(value) ? value : null)) }))
		.filter((line) => line.ys.some((value) => value !== null));
	const keys = lines.map((line, place) =>
		h("span", { class: `key c${place % COLOURS}` }, h("i", {}), line.name, h("b", {})),
	);
	const where = h("b", {});
	const head = h(
		"div",
		{ class: "chart-head" },
		h("strong", {}, chart.title),
		h("em", {}, chart.y_label, where),
		h("div", { class: "keys" }, keys),
	);
	const caption = chart.caption ? h("figcaption", {}, chart.caption) : null;
	if (!lines.length) return h("figure", {}, head, h("p", { class: "empty" }, "No measurements yet."), caption);
	const curves = lines.map((line) => {
		const smooth = runningMean(line.ys, line.smoothing ?? 1);
		const points = line.xs.map((x, place) => [x, smooth[place]]);
		return { line, points: line.steps ? points : thinned(points) };
	});
	const known = (pairs) => pairs.filter(([, y]) => y !== null);
	const all = curves.flatMap(({ line, points }) => [
		...known(points).map(([, y]) => y),
		...known(line.xs.map((x, place) => [x, line.ys[place]])).map(([, y]) => y),
	]);
	const yTicks = chart.log_y ? logTicks(all) : roundTicks(...limits(all, chart.clip));
	const xs = [
		...curves.flatMap(({ points }) => points.map(([x]) => x)),
		...(chart.stages ?? []).flatMap((stage) => [stage.start, stage.end]),
	];
	let [xLow, xHigh] = [Math.min(...xs), Math.max(...xs)];
	if (xLow === xHigh) [xLow, xHigh] = xLow > 0 ? [0, 1.1 * xHigh] : [xLow - 0.5, xHigh + 0.5];
	const base = HEIGHT - BOTTOM;
	const right = WIDTH - RIGHT;
	const x = (value) => LEFT + ((value - xLow) / (xHigh - xLow)) * (right - LEFT);
	const scaled = chart.log_y ? Math.log : (value) => value;
	const [yLow, yHigh] = [yTicks[0], yTicks.at(-1)];
	const y = (value) =>
		base -
		((scaled(Math.min(Math.max(value, yLow), yHigh)) - scaled(yLow)) / (scaled(yHigh) - scaled(yLow))) * (base - TOP);
	const spoken = curves.map(({ line, points }) => {
		const values = known(points).map(([, each]) => each);
		return `${line.name} goes from ${tickText(Number(values[0].toPrecision(4)))} to ${tickText(Number(values.at(-1).toPrecision(4)))}`;
	});
	const svg = s("svg", {
		class: "chart",
		viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
		role: "img",
		"aria-label": `${chart.title}, over ${chart.x_label}: ${spoken.join("; ")}.`,
	});
	drawStages(svg, chart.stages ?? [], x, base);
	for (const tick of yTicks) {
		svg.append(
			s("path", { class: tick === 0 ? "zero" : "grid", d: `M${LEFT} ${y(tick).toFixed(1)}H${right}` }),
			s("text", { class: "tick y", x: LEFT - 8, y: (y(tick) + 4).toFixed(1) }, tickText(tick)),
		);
	}
	svg.append(s("path", { class: "base", d: `M${LEFT} ${base}H${right}` }));
	for (const tick of roundTicks(xLow, xHigh, 4).filter((each) => each >= xLow && each <= xHigh)) {
		svg.append(
			s("path", { class: "base", d: `M${x(tick).toFixed(1)} ${base}v5` }),
			s("text", { class: "tick x", x: x(tick).toFixed(1), y: base + 19 }, tickText(tick)),
		);
	}
	svg.append(s("text", { class: "axis end", x: right, y: HEIGHT - 4 }, chart.x_label));
	for (const mark of (chart.marks ?? []).filter((each) => each.x >= xLow && each.x <= xHigh).slice(0, 80)) {
		const line = s("path", {
			class: `mark${mark.grave ? " grave" : ""}`,
			d: `M${x(mark.x).toFixed(1)} ${TOP}V${base}`,
		});
		line.append(s("title", {}, mark.text));
		svg.append(line);
	}
	curves.forEach(({ line, points }, place) => drawCurve(svg, line, points, place % COLOURS, x, y));
	readOff(svg, curves, keys, where, { x, xLow, xHigh, right, base, unit: chart.x_label.split(" ")[0] });
	return h("figure", {}, head, svg, caption);
}

function drawStages(svg, stages, x, base) {
	let [stable, free] = [0, -Infinity];
	for (const stage of stages) {
		const [from, to] = [x(stage.start), x(stage.end)];
		svg.append(
			s("rect", {
				class: `stage ${stage.fading ? "fading" : `stable s${stable % 2}`}`,
				x: from.toFixed(1),
				y: TOP,
				width: Math.max(to - from, 0).toFixed(1),
				height: base - TOP,
			}),
		);
		if (!stage.fading) stable += 1;
		if (stage.text && to - from >= 30 && (from + to) / 2 > free) {
			free = (from + to) / 2 + 60;
			svg.append(s("text", { class: "stage-label", x: ((from + to) / 2).toFixed(1), y: TOP - 9 }, stage.text));
		}
	}
}

function drawCurve(svg, line, points, colour, x, y) {
	(line.spread ?? []).forEach((spread, place) => {
		const value = line.ys[place];
		if (spread > 0 && value !== null)
			svg.append(
				s("path", {
					class: `spread c${colour}`,
					d: `M${x(line.xs[place]).toFixed(1)} ${y(value - spread).toFixed(1)}V${y(value + spread).toFixed(1)}`,
				}),
			);
	});
	if ((line.smoothing ?? 1) > 1)
		svg.append(
			s("path", {
				class: `raw c${colour}`,
				d: pathOf(thinned(line.xs.map((each, place) => [each, line.ys[place]])), x, y),
			}),
		);
	svg.append(s("path", { class: `line c${colour}`, d: pathOf(points, x, y, line.steps) }));
	const seen = points.filter(([, value]) => value !== null);
	if (line.dots || seen.length === 1)
		for (const [px, py] of seen)
			svg.append(s("circle", { class: `c${colour}`, cx: x(px).toFixed(1), cy: y(py).toFixed(1), r: 4 }));
	if (line.best !== null && line.best !== undefined)
		svg.append(
			s("circle", {
				class: `best c${colour}`,
				cx: x(line.xs[line.best]).toFixed(1),
				cy: y(line.ys[line.best]).toFixed(1),
				r: 8,
			}),
		);
}

function readOff(svg, curves, keys, where, { x, xLow, xHigh, right, base, unit }) {
	const cursor = svg.appendChild(s("path", { class: "cursor" }));
	const clear = () => {
		cursor.setAttribute("d", "");
		where.textContent = "";
		keys.forEach((key) => {
			key.lastElementChild.textContent = "";
		});
	};
	svg.addEventListener("pointermove", (event) => {
		const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).x;
		if (at < LEFT || at > right) return clear();
		const value = xLow + ((at - LEFT) / (right - LEFT)) * (xHigh - xLow);
		curves.forEach(({ points }, place) => {
			const known = points.filter(([, each]) => each !== null);
			const near = known.reduce((a, b) => (Math.abs(b[0] - value) < Math.abs(a[0] - value) ? b : a), known[0]);
			keys[place].lastElementChild.textContent = near ? ` ${tickText(Number(near[1].toPrecision(3)))}` : "";
		});
		cursor.setAttribute("d", `M${x(value).toFixed(1)} ${TOP}V${base}`);
		where.textContent = ` at ${tickText(Number(value.toPrecision(3)))} ${unit}`;
		return undefined;
	});
	svg.addEventListener("pointerleave", clear);
}
