// Face: one picture, and everything that decides it.

import { DRAWING, drawingControls, drawingQuery } from "./drawing.js";
import { number, numbers, whole, word } from "./address.js";
import { faceTitle, keepFace } from "./faces.js";
import { button, fold, group, h, menu, rollSeed, seedField, short, slider } from "./parts.js";
import { Stage, Thumb } from "./stage.js";

const RELATIVES = 8; // of "more like this one"
const VARY = 0.3; // as generate --vary

export const faceFields = { ...DRAWING, seed: whole(0), face: word(), like: number(), vary: number(), edit: numbers() };

export function stateQuery(values) {
	return {
		...drawingQuery(values),
		...(values.face ? { face: values.face } : { seed: values.seed }),
		like: values.face ? null : values.like,
		vary: values.face || values.like === null ? null : values.vary,
		edit: Object.entries(values.edit)
			.filter(([, amount]) => amount)
			.map(([name, amount]) => `${name}:${amount}`),
	};
}

// The face of a state, as other screens take it: its seed, or, if it was edited, kept first.
async function carry(app, values) {
	const plain = !values.face && values.like === null && !Object.values(values.edit).some(Boolean);
	if (plain) return String(values.seed);
	if (values.face && !Object.values(values.edit).some(Boolean)) return values.face;
	return keepFace(app, stateQuery(values), `${faceTitle(app, values.face || values.seed)} edited`);
}

function build(app) {
	const change = (changes, settled) => app.change(changes, settled);
	const now = () => app.address.values;
	const onward = async (screen, key) => {
		const values = now();
		const face = await carry(app, values);
		if (face !== null)
			app.go(screen, {
				psi: values.psi,
				noise_mode: values.noise_mode,
				noise_seed: values.noise_seed,
				class: values.class,
				[key]: key === "through" ? [face, String(rollSeed())] : [face, String(rollSeed())],
			});
	};
	const stage = new Stage(app, {
		actions: [
			button("Keep", () => keepFace(app, stateQuery(now()), faceTitle(app, now().face || now().seed)), {
				icon: "keep",
				label: "Keep this face",
			}),
			app.network.has_w
				? button("Mix", () => onward("mix", "faces"), { icon: "mix", label: "Mix this face with another" })
				: null,
			button("Walk", () => onward("walk", "through"), { icon: "walk", label: "Walk from this face to another" }),
		],
	});
	const seed = seedField({ label: "Seed", value: 0, change: (value, settled) => change({ seed: value }, settled) });
	const chosen = h("p", { class: "chosen" });
	const named = h(
		"div",
		{ class: "control" },
		chosen,
		button("Back to seeds", () => change({ face: "" }), { kind: "quiet" }),
	);
	const likeness = slider({
		label: "How different",
		min: 0,
		max: 1,
		step: 0.05,
		value: VARY,
		change: (value, settled) => change({ vary: value }, settled),
	});
	const alike = h("p", { class: "chosen" });
	const likely = h(
		"div",
		{ hidden: true },
		alike,
		likeness.element,
		button("Not like it any more", () => change({ like: null, vary: null }), { kind: "quiet" }),
	);
	const relatives = relativesOf(app, change);
	const edits = editControls(app, change);
	const drawing = drawingControls(app.network, change);
	const panel = h(
		"div",
		{ class: "panel" },
		h("h1", {}, "Face"),
		h("p", { class: "intro" }, "A seed decides who it is. Roll the dice until you like one."),
		group(null, seed.element, named, likely, app.network.has_w ? relatives.element : null),
		drawing.element,
		edits.element,
	);
	return {
		element: h("div", { class: "split" }, stage.element, panel),
		show: (values, settled) => {
			const title = values.face ? faceTitle(app, values.face) : `Seed ${values.seed}`;
			stage.ask(stateQuery(values), settled, `${title}, psi ${short(values.psi ?? app.network.psi ?? 1)}`);
			seed.set(values.seed);
			seed.element.hidden = Boolean(values.face);
			named.hidden = !values.face;
			chosen.textContent = title;
			likely.hidden = values.like === null || Boolean(values.face);
			alike.textContent = `Like seed ${values.like}`;
			likeness.set(values.vary ?? VARY);
			drawing.set(values);
			edits.set(values);
			relatives.set(values, settled);
		},
		stop: () => {
			stage.stop();
			relatives.stop();
		},
	};
}

// "More like this one": small variations to choose from, drawn once the fold is open.
function relativesOf(app, change) {
	let values = null;
	const thumbs = Array.from({ length: RELATIVES }, () => new Thumb(app));
	const items = thumbs.map((thumb, place) =>
		h(
			"li",
			{},
			h(
				"button",
				{
					type: "button",
					class: "tile",
					onclick: () => {
						const base = values.like ?? values.seed;
						change({ like: base, seed: seedOf(base, place), vary: values.vary ?? VARY });
					},
				},
				thumb.picture,
			),
		),
	);
	const element = fold("More like this one", h("ul", { class: "tiles" }, items));
	const seedOf = (base, place) => base + 1 + place;
	const fill = () => {
		if (!element.open || !values || values.face) return;
		const base = values.like ?? values.seed;
		thumbs.forEach((thumb, place) =>
			thumb.ask(
				{ ...stateQuery(values), seed: seedOf(base, place), like: base, vary: values.vary ?? VARY },
				`Like seed ${base}: variation ${place + 1}`,
			),
		);
	};
	element.addEventListener("toggle", fill);
	return {
		element,
		set: (next, settled) => {
			values = structuredClone(next);
			element.hidden = Boolean(next.face);
			if (settled) fill();
		},
		stop: () => thumbs.forEach((thumb) => thumb.stop()),
	};
}

// Sliders for the directions in use, and a menu to add another.
function editControls(app, change) {
	const sliders = new Map();
	const rows = h("div", {});
	let edit = {};
	const by = new Map(app.directions.map((direction) => [direction.name, direction]));
	const give = (name, amount, settled) => change({ edit: { ...edit, [name]: amount } }, settled);
	const more = menu({
		label: "Add a direction",
		choices: [["", "choose …"], ...app.directions.map((one) => [one.name, one.title ?? one.name])],
		value: "",
		change: (name) => {
			if (name) give(name, 0, true);
			more.set("");
		},
	});
	const element = group("Edits", rows, more.element);
	element.hidden = !app.directions.length;
	const add = (name) => {
		const { title = name, least = -3, most = 3 } = by.get(name) ?? {};
		const one = slider({
			label: title,
			min: least,
			max: most,
			step: (most - least) / 100,
			value: 0,
			mark: 0,
			change: (amount, settled) => give(name, amount, settled),
		});
		const remove = button(
			"",
			() => {
				const rest = { ...edit };
				delete rest[name];
				change({ edit: rest }, true);
			},
			{ icon: "remove", label: `Remove ${title}`, kind: "quiet" },
		);
		const row = h("div", { class: "removable" }, one.element, remove);
		sliders.set(name, { set: one.set, row });
		rows.append(row);
	};
	return {
		element,
		set: (values) => {
			edit = values.edit;
			for (const name of Object.keys(edit)) if (!sliders.has(name)) add(name);
			for (const [name, { set, row }] of sliders) {
				if (name in edit) set(edit[name]);
				else {
					row.remove();
					sliders.delete(name);
				}
			}
		},
	};
}

export const face = { title: "Face", fields: faceFields, build };
