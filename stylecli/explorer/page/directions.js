// Directions: what changes in a face along each of them, on sliders and in strips.

import { word } from "./address.js";
import { drawingControls } from "./drawing.js";
import { faceFields, stateQuery } from "./face.js";
import { faceTitle, keepFace } from "./faces.js";
import { button, group, h, seedField, short, slider } from "./parts.js";
import { refuse } from "./mix.js";
import { Stage, Thumb } from "./stage.js";

const STRIP = 7; // pictures from one end of a direction to the other
const AT_FIRST = 12; // sliders before "show all"

const fields = { ...faceFields, strip: word(), show: word() };

function build(app) {
	if (!app.directions.length) {
		const find = findButton(app, "Find them now");
		return refuse("Directions", `${app.why[0].toUpperCase()}${app.why.slice(1)}.`, find.problem, find.button);
	}
	const change = (changes, settled) => app.change(changes, settled);
	const now = () => app.address.values;
	const stage = new Stage(app, {
		actions: [
			button("Keep", () => keepFace(app, stateQuery(now()), `${faceTitle(app, now().face || now().seed)} edited`), {
				icon: "keep",
				label: "Keep this face",
			}),
		],
	});
	const thumbs = Array.from({ length: STRIP }, () => new Thumb(app));
	const amounts = thumbs.map(() => h("span", {}));
	const title = h("h2", {});
	const steps = thumbs.map((thumb, place) =>
		h(
			"button",
			{
				type: "button",
				class: "tile",
				onclick: () => {
					const { name, least, most } = shown();
					change({ edit: { ...now().edit, [name]: amountAt(least, most, place) } });
				},
			},
			thumb.picture,
			amounts[place],
		),
	);
	const strip = h("section", { class: "strip" }, title, h("div", { class: "tiles" }, steps));
	stage.frame.element.after(strip);
	const seed = seedField({
		label: "Seed",
		value: 0,
		change: (value, settled) => change({ seed: value, face: "" }, settled),
	});
	const named = h("p", { class: "chosen" });
	const filter = h("input", { type: "search", id: "filter", placeholder: "Find a direction" });
	filter.addEventListener("input", () => narrow());
	const rows = app.directions.map((direction) => row(app, direction, now, change));
	const all = button("Show all", () => change({ show: "all" }), { kind: "quiet" });
	const reset = button("Reset all", () => change({ edit: {} }), { kind: "quiet" });
	const find = app.directions.some((one) => one.method === "sefa") ? null : findButton(app, "Find components", "quiet");
	const drawing = drawingControls(app.network, change);
	const panel = h(
		"div",
		{ class: "panel" },
		h("h1", {}, "Directions"),
		h(
			"p",
			{ class: "intro" },
			"Move a face along directions in its styles. The strip shows one direction from end to end.",
		),
		group(null, named, seed.element),
		group(
			"Sliders",
			app.directions.length > AT_FIRST
				? h("div", { class: "control" }, h("label", { htmlFor: "filter", class: "spoken" }, "Find a direction"), filter)
				: null,
			rows.map((one) => one.element),
			h("div", { class: "actions" }, all, reset, find?.button),
			find?.problem,
		),
		drawing.element,
	);
	const shown = () => app.directions.find((one) => one.name === now().strip) ?? app.directions[0];

	function narrow() {
		const text = filter.value.trim().toLowerCase();
		const { edit, show } = now();
		rows.forEach((one, place) => {
			const found = text
				? one.title.toLowerCase().includes(text)
				: show === "all" || place < AT_FIRST || one.name in edit;
			one.element.hidden = !found;
		});
		all.hidden = show === "all" || app.directions.length <= AT_FIRST || Boolean(text);
	}

	return {
		element: h("div", { class: "split" }, stage.element, panel),
		show: (values, settled) => {
			const who = values.face ? faceTitle(app, values.face) : `Seed ${values.seed}`;
			const direction = shown();
			named.textContent = values.face ? who : "";
			named.hidden = !values.face;
			seed.set(values.seed);
			rows.forEach((one) => one.set(values, one.name === direction.name));
			narrow();
			reset.disabled = !Object.values(values.edit).some(Boolean);
			drawing.set(values);
			stage.ask(stateQuery(values), settled, `${who}, edited`);
			title.textContent = direction.title;
			if (settled) {
				const at = values.edit[direction.name] ?? 0;
				thumbs.forEach((thumb, place) => {
					const amount = amountAt(direction.least, direction.most, place);
					amounts[place].textContent = short(amount, 1);
					steps[place].setAttribute("aria-label", `${direction.title} ${short(amount, 1)}`);
					steps[place].setAttribute("aria-pressed", String(Math.abs(at - amount) < 1e-6));
					thumb.ask(stateQuery({ ...values, edit: { ...values.edit, [direction.name]: amount } }), "");
				});
			}
		},
		stop: () => {
			stage.stop();
			thumbs.forEach((thumb) => thumb.stop());
		},
	};
}

// Looks for directions in the network's weights; then the screen shows them.
function findButton(app, word, kind = "strong") {
	const problem = h("p", { class: "problem", role: "alert" });
	const find = async () => {
		one.disabled = true;
		problem.textContent = "";
		try {
			await app.findDirections();
		} catch (error) {
			problem.textContent = error.message;
		}
		one.disabled = false;
	};
	const one = button(word, find, { icon: "directions", kind });
	return { button: one, problem };
}

const amountAt = (least, most, place) => Number((least + ((most - least) * place) / (STRIP - 1)).toFixed(4));

function row(app, { name, title, least, most }, now, change) {
	const one = slider({
		label: title,
		min: least,
		max: most,
		step: (most - least) / 100,
		value: 0,
		mark: 0,
		change: (amount, settled) => change({ edit: { ...now().edit, [name]: amount }, strip: name }, settled),
	});
	const strip = button("Strip", () => change({ strip: name }), { kind: "quiet", label: `Show the strip of ${title}` });
	return {
		name,
		title,
		element: h("div", { class: "removable" }, one.element, strip),
		set: (values, chosen) => {
			one.set(values.edit[name] ?? 0);
			strip.setAttribute("aria-pressed", String(chosen));
		},
	};
}

export const directions = { title: "Directions", fields, build };
