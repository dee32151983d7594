// How pictures are drawn: the part of the state, and of the panel, that all screens share.

import { number, numbers, oneOf, word } from "./address.js";
import { button, choice, fold, group, h, menu, seedField, short, slider } from "./parts.js";

export const DRAWING = {
	network: word(),
	psi: number(),
	psi_layers: numbers(),
	noise_mode: oneOf("const", "const", "random", "none"),
	noise_seed: number(),
	noise_scale: number(),
	class: number(),
	lod: number(),
	rotate: number(),
	x: number(),
	y: number(),
};

const NOISE = { const: "Stored", random: "By seed", none: "None" };

// The query of a drawing: the names of the API, and only what was changed.
export function drawingQuery(values) {
	const bands = Object.entries(values.psi_layers ?? {})
		.map(([band, psi]) => `${band}:${psi}`)
		.join(",");
	const moved = Number.isFinite(values.x ?? NaN) || Number.isFinite(values.y ?? NaN);
	return {
		network: values.network,
		psi: values.psi,
		psi_layers: bands,
		noise_mode: values.noise_mode === "const" ? null : values.noise_mode,
		noise_seed: values.noise_mode === "random" ? (values.noise_seed ?? 0) : null,
		noise_scale: values.noise_mode === "none" ? null : values.noise_scale,
		class: values.class,
		lod: values.lod,
		rotate: values.rotate,
		translate: moved ? `${short(values.x ?? 0, 4)},${short(values.y ?? 0, 4)}` : null,
	};
}

// Who a face is: digits are a seed, everything else the name of a kept or projected face.
export const isSeed = (face) => /^\d+$/.test(String(face));
export const faceQuery = (face) => (isSeed(face) ? { seed: face } : { face });

// The controls for what this network can vary. `change(values, settled)`.
export function drawingControls(network, change, { noise = true } = {}) {
	const parts = [];
	const setters = [];
	const add = (element, set) => {
		parts.push(element);
		if (set) setters.push(set);
	};
	if (network.truncates) addTruncation(network, change, add);
	if (network.classes) {
		const names = [
			["", "in turn, by seed"],
			...Array.from({ length: network.classes }, (_, each) => [each, String(each)]),
		];
		const select = menu({
			label: "Class",
			choices: names,
			value: "",
			change: (value) => change({ class: value === "" ? null : Number(value) }, true),
		});
		add(group(null, select.element), (values) => select.set(values.class ?? ""));
	}
	if (network.has_noise && noise) addNoise(change, add);
	if (network.grows && network.deepest_lod > 0) {
		const lod = slider({
			label: "Level of detail (lod)",
			min: 0,
			max: network.deepest_lod,
			step: 1,
			value: 0,
			mark: 0,
			note: "Each step halves the resolution.",
			change: (value, settled) => change({ lod: value || null }, settled),
		});
		add(group(null, lod.element), (values) => lod.set(values.lod ?? 0));
	}
	if (network.moves_pictures) addMotion(change, add);
	return { element: h("div", { class: "drawing" }, parts), set: (values) => setters.forEach((set) => set(values)) };
}

function addTruncation(network, change, add) {
	const usual = network.psi ?? 1;
	const psi = slider({
		label: "Truncation (psi)",
		min: -1,
		max: 1.5,
		step: 0.01,
		value: usual,
		mark: usual,
		note: "0 is the average face, 1 the full variety.",
		change: (value, settled) => change({ psi: value }, settled),
	});
	let now = {};
	const bands = Object.keys(network.bands ?? {});
	const sliders = bands.map((band) =>
		slider({
			label: `${band[0].toUpperCase()}${band.slice(1)} styles`,
			min: -1,
			max: 1.5,
			step: 0.01,
			value: usual,
			change: (value, settled) => change({ psi_layers: { ...now, [band]: value } }, settled),
		}),
	);
	const reset = button("Same for all", () => change({ psi_layers: {} }, true), { kind: "quiet" });
	const usualOf = (band, all) => (network.psi_cutoff != null && network.bands[band][0] >= network.psi_cutoff ? 1 : all);
	const each =
		bands.length > 1
			? fold(
					"Truncation of each band",
					sliders.map((one) => one.element),
					reset,
				)
			: null;
	add(group(null, psi.element, each), (values) => {
		now = values.psi_layers ?? {};
		psi.set(values.psi ?? usual);
		bands.forEach((band, place) => sliders[place].set(now[band] ?? usualOf(band, values.psi ?? usual)));
		reset.disabled = !Object.keys(now).length;
		if (each && Object.keys(now).length) each.open = true;
	});
}

function addNoise(change, add) {
	const mode = choice({
		label: "Noise",
		choices: Object.entries(NOISE),
		value: "const",
		change: (value) => change({ noise_mode: value }, true),
	});
	const seed = seedField({
		label: "Noise seed",
		value: 0,
		change: (value, settled) => change({ noise_seed: value }, settled),
	});
	const strength = slider({
		label: "Noise strength",
		min: 0,
		max: 3,
		step: 0.05,
		value: 1,
		mark: 1,
		change: (value, settled) => change({ noise_scale: value === 1 ? null : value }, settled),
	});
	add(group(null, mode.element, seed.element, strength.element), (values) => {
		mode.set(values.noise_mode);
		seed.set(values.noise_seed ?? 0);
		strength.set(values.noise_scale ?? 1);
		seed.element.hidden = values.noise_mode !== "random";
		strength.element.hidden = values.noise_mode === "none";
	});
}

function addMotion(change, add) {
	const names = [
		["x", "Right", 1],
		["y", "Down", 1],
		["rotate", "Turn (degrees)", 180],
	];
	const sliders = names.map(([name, label, most]) => [
		name,
		slider({
			label,
			min: -most,
			max: most,
			step: most / 100,
			value: 0,
			mark: 0,
			change: (value, settled) => change({ [name]: value || null }, settled),
		}),
	]);
	add(
		group(
			null,
			fold(
				"Move the picture",
				sliders.map(([, one]) => one.element),
			),
		),
		(values) => sliders.forEach(([name, one]) => one.set(values[name] ?? 0)),
	);
}
