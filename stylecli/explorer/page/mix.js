// Mix: the styles of two or more faces in one, a switch for each band; and Figure 3 to click on.

import { list, numbers, oneOf, word } from "./address.js";
import { DRAWING, drawingControls, drawingQuery, faceQuery, isSeed } from "./drawing.js";
import { faceTitle, keepFace, photographDrop, pickFace } from "./faces.js";
import { button, choice, fold, group, h, newId, rollSeed } from "./parts.js";
import { Commander, Stage, Thumb } from "./stage.js";

const MOST = 6; // faces in a mix
const BANDS = { coarse: "pose, shape, hair", middle: "features", fine: "colours" };
const GRID = 5; // rows and columns of Figure 3

const fields = {
	...DRAWING,
	view: oneOf("mixer", "mixer", "grid"),
	faces: list(["0", "1"], MOST),
	take: numbers(),
	rows: list(["0", "1", "2"], 2 * GRID),
	cols: list(["3", "4", "5", "6"], 2 * GRID),
	styles: word("coarse"),
};

// Which face gives each layer: bands first, then layers named by themselves.
function givers(network, values) {
	const from = Array.from({ length: network.num_ws }, () => 0);
	const at = (place) => Math.min(Math.max(Math.trunc(place), 0), values.faces.length - 1);
	for (const [name, place] of Object.entries(values.take))
		if (network.bands[name])
			network.bands[name].forEach((layer) => {
				from[layer] = at(place);
			});
	for (const [name, place] of Object.entries(values.take))
		if (/^\d+$/.test(name) && name < network.num_ws) from[name] = at(place);
	return from;
}

// "4-7,9": layers as the command line writes them, or the name of a band where it is one.
function layerText(network, layers) {
	for (const [band, all] of Object.entries(network.bands)) if (all.join() === layers.join()) return band;
	const runs = [];
	for (const layer of layers) {
		if (runs.length && runs.at(-1)[1] === layer - 1) runs.at(-1)[1] = layer;
		else runs.push([layer, layer]);
	}
	return runs.map(([first, last]) => (first === last ? first : `${first}-${last}`)).join(",");
}

export function mixQuery(network, values) {
	const from = givers(network, values);
	const mix = values.faces.map((face, place) => {
		const layers = from.flatMap((each, layer) => (each === place ? [layer] : []));
		return place && layers.length ? `${layerText(network, layers)}:${face}` : null;
	});
	return { ...drawingQuery(values), ...faceQuery(values.faces[0]), mix: mix.filter(Boolean) };
}

function build(app) {
	if (!app.network.has_w)
		return refuse("Mix", "This network has no intermediate latent space (w), so it has no styles to mix.");
	const view = choice({
		label: "View",
		hidden: true,
		choices: [
			["mixer", "Mixer"],
			["grid", "Figure 3"],
		],
		value: "mixer",
		change: (value) => app.change({ view: value }),
	});
	const mixer = buildMixer(app);
	const grid = buildGrid(app);
	const place = h("div", { class: "split" });
	const intro = h("p", { class: "intro" });
	const drawing = drawingControls(app.network, (changes, settled) => app.change(changes, settled));
	const panel = h(
		"div",
		{ class: "panel" },
		h("h1", {}, "Mix"),
		intro,
		view.element,
		mixer.controls,
		grid.controls,
		drawing.element,
	);
	place.append(mixer.element, grid.element, panel);
	return {
		element: place,
		show: (values, settled) => {
			view.set(values.view);
			const isGrid = values.view === "grid";
			mixer.element.hidden = mixer.controls.hidden = isGrid;
			grid.element.hidden = grid.controls.hidden = !isGrid;
			intro.textContent = isGrid
				? "Every picture is its row's face with some styles of its column. Click on one to take it to the mixer."
				: "Choose which face gives which styles. Drop a photograph anywhere here to mix it in.";
			drawing.set(values);
			(isGrid ? grid : mixer).show(values, settled);
			(isGrid ? mixer : grid).rest();
		},
		photograph: mixer.photograph,
		stop: () => {
			mixer.stop();
			grid.stop();
		},
	};
}

export function refuse(title, sentence, ...more) {
	return {
		element: h("section", { class: "message" }, h("h1", {}, title), h("p", {}, sentence), more),
		show: () => {},
		stop: () => {},
	};
}

function buildMixer(app) {
	const now = () => app.address.values;
	const stage = new Stage(app, {
		actions: [
			button("Keep", () => keepFace(app, mixQuery(app.network, now()), "mix"), {
				icon: "keep",
				label: "Keep this face",
			}),
			button("Walk", () => app.go("walk", { psi: now().psi, through: now().faces }), {
				icon: "walk",
				label: "Walk through these faces",
			}),
		],
	});
	const sources = h("div", { class: "sources" });
	const layers = fold(
		"Every layer",
		h("p", { class: "hint" }, "A layer that is set here leaves its band."),
		h("div", {}),
	);
	const drop = photographDrop(app, (face) => add(face));
	const controls = h("div", { class: "controls" }, group(null, sources, layers), group("A photograph", drop.element));
	let thumbs = [];
	let built = "";

	function add(face) {
		const faces = [...now().faces.slice(0, MOST - 1), face]; // the last makes room
		const { take } = now();
		const place = faces.length - 1;
		app.change({ faces, take: Object.keys(take).length ? take : { [Object.keys(app.network.bands)[0]]: place } });
	}

	async function replace(place) {
		const face = await pickFace(app, `Face ${letter(place)}`, now().faces[place]);
		if (face !== null) app.change({ faces: now().faces.map((one, each) => (each === place ? face : one)) });
	}

	function remove(place) {
		const take = Object.fromEntries(
			Object.entries(now().take)
				.filter(([, each]) => each !== place)
				.map(([name, each]) => [name, each > place ? each - 1 : each]),
		);
		app.change({ faces: now().faces.filter((_, each) => each !== place), take });
	}

	// A table: a column for each face, a row of switches for each band or layer.
	function table(rows, faces, heads) {
		const element = h(
			"table",
			{ class: faces.length > 3 ? "switches many" : "switches" },
			h("caption", { class: "spoken" }, "Which face gives which styles"),
			heads
				? h(
						"thead",
						{},
						h(
							"tr",
							{},
							h("td", {}),
							faces.map((_, place) => h("th", { scope: "col" }, heads[place])),
						),
					)
				: null,
			h(
				"tbody",
				{},
				rows.map(([name, title, hint]) => {
					const group = newId("give");
					return h(
						"tr",
						{},
						h("th", { scope: "row" }, title, hint ? h("small", {}, hint) : null),
						faces.map((face, place) =>
							h(
								"td",
								{},
								h(
									"label",
									{},
									h("input", {
										type: "radio",
										name: group,
										value: place,
										"data-row": name,
										"aria-label": `${title} from ${letter(place)}, ${faceTitle(app, face)}`,
										onchange: () => app.change({ take: { ...now().take, [name]: place } }),
									}),
									h("span", {}),
								),
							),
						),
					);
				}),
			),
		);
		element.style.setProperty("--faces", faces.length);
		return element;
	}

	function fill(values) {
		const { faces } = values;
		thumbs.forEach((thumb) => thumb.stop());
		thumbs = faces.map(() => new Thumb(app));
		const heads = faces.map((face, place) => [
			h(
				"button",
				{
					type: "button",
					class: "tile",
					"aria-label": `Face ${letter(place)}: ${faceTitle(app, face)}. Change it`,
					onclick: () => replace(place),
				},
				thumbs[place].picture,
				h("span", {}, h("b", {}, letter(place)), h("br"), faceTitle(app, face)),
			),
			faces.length > 2
				? button("", () => remove(place), { icon: "remove", label: `Remove face ${letter(place)}`, kind: "quiet" })
				: null,
		]);
		const bands = Object.entries(app.network.bands).map(([band]) => [
			band,
			`${band[0].toUpperCase()}${band.slice(1)}`,
			BANDS[band],
		]);
		sources.replaceChildren(
			table(bands, faces, heads),
			h(
				"div",
				{ class: "actions" },
				faces.length < MOST
					? button(
							"Another face",
							async () => {
								const face = await pickFace(app, "Another face");
								if (face !== null) add(face);
							},
							{ icon: "add" },
						)
					: null,
				button(
					"Roll all",
					() => app.change({ faces: faces.map((face) => (/^\d+$/.test(face) ? String(rollSeed()) : face)) }),
					{ icon: "dice" },
				),
			),
		);
		const rows = app.network.layers.map((size, layer) => [String(layer), `Layer ${layer}`, `${size} px`]);
		layers.lastElementChild.replaceChildren(
			table(
				rows,
				faces,
				faces.map((_, place) => letter(place)),
			),
		);
	}

	function mark(values) {
		const from = givers(app.network, values);
		for (const input of controls.querySelectorAll("input[data-row]")) {
			const { row } = input.dataset;
			const band = app.network.bands[row];
			const places = band ? band.map((layer) => from[layer]) : [from[row]];
			input.checked = places.every((place) => place === Number(input.value));
		}
	}

	return {
		element: stage.element,
		controls,
		photograph: (file) => drop.start(file),
		show: (values, settled) => {
			const key = JSON.stringify([values.faces, app.faces]);
			if (key !== built) {
				built = key;
				keepFocus(sources, () => fill(values));
			}
			mark(values);
			thumbs.forEach((thumb, place) => thumb.ask({ ...drawingQuery(values), ...faceQuery(values.faces[place]) }, ""));
			stage.ask(
				mixQuery(app.network, values),
				settled,
				`Mix of ${values.faces.map((face) => faceTitle(app, face)).join(", ")}`,
			);
		},
		rest: () => {
			stage.place.drop();
			stage.commander.stop();
		},
		stop: () => {
			stage.stop();
			drop.stop();
			thumbs.forEach((thumb) => thumb.stop());
		},
	};
}

// The faces of one side, as the command line names them: a lone number would be a count.
const side = (name, faces) =>
	faces.length > 1 && faces.every(isSeed) ? { [`${name}s`]: faces.join() } : { [name]: faces };

const letter = (place) => "ABCDEFGH"[place];

// Rebuild a part of the page without losing the keyboard's place in it.
export function keepFocus(part, rebuild) {
	const all = () => [...part.querySelectorAll("button, input, select, a")];
	const place = all().indexOf(document.activeElement);
	rebuild();
	if (place >= 0) (all()[place] ?? all().at(-1))?.focus();
}

function buildGrid(app) {
	const now = () => app.address.values;
	const commander = new Commander(app);
	const table = h("table", { class: "figure3" });
	const element = h(
		"div",
		{ class: "view" },
		h("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Style mixing" }, table),
		commander.element,
	);
	const styles = choice({
		label: "Styles of the columns",
		choices: Object.keys(app.network.bands).map((band) => [band, band[0].toUpperCase() + band.slice(1)]),
		value: "coarse",
		change: (value) => app.change({ styles: value }),
	});
	const seeds = (count) => Array.from({ length: count }, () => String(rollSeed()));
	const count = (side, by) => {
		const all = now()[side];
		app.change({ [side]: by > 0 ? [...all, String(rollSeed())] : all.slice(0, -1) });
	};
	const sizes = ["rows", "cols"].map((side) => {
		const word = side === "rows" ? "row" : "column";
		return h(
			"div",
			{ class: "joined" },
			button("", () => now()[side].length > 1 && count(side, -1), { icon: "minus", label: `One ${word} fewer` }),
			h("span", {}, side === "rows" ? "Rows" : "Columns"),
			button("", () => now()[side].length < 2 * GRID && count(side, 1), { icon: "add", label: `One ${word} more` }),
		);
	});
	const controls = h(
		"div",
		{ class: "controls" },
		group(
			null,
			styles.element,
			h(
				"div",
				{ class: "actions" },
				sizes,
				button("Roll all", () => app.change({ rows: seeds(now().rows.length), cols: seeds(now().cols.length) }), {
					icon: "dice",
				}),
			),
		),
	);
	let thumbs = [];
	let built = "";

	async function replace(side, place) {
		const face = await pickFace(app, side === "rows" ? `Row ${place + 1}` : `Column ${place + 1}`, now()[side][place]);
		if (face !== null) app.change({ [side]: now()[side].map((one, each) => (each === place ? face : one)) });
	}

	function cell(label, onclick) {
		const thumb = new Thumb(app);
		thumbs.push(thumb);
		thumb.element = h("button", { type: "button", class: "tile", "aria-label": label, onclick }, thumb.picture);
		return thumb;
	}

	function fill(values) {
		thumbs.forEach((thumb) => thumb.stop());
		thumbs = [];
		const { rows, cols } = values;
		table.style.setProperty("--rows", rows.length + 1);
		table.style.setProperty("--columns", cols.length + 1);
		const head = cols.map((face, place) =>
			h(
				"th",
				{ scope: "col" },
				cell(`Column ${place + 1}: ${faceTitle(app, face)}. Change it`, () => replace("cols", place)).element,
				h("span", {}, faceTitle(app, face)),
			),
		);
		const body = rows.map((row, y) =>
			h(
				"tr",
				{},
				h(
					"th",
					{ scope: "row" },
					cell(`Row ${y + 1}: ${faceTitle(app, row)}. Change it`, () => replace("rows", y)).element,
					h("span", {}, faceTitle(app, row)),
				),
				cols.map((col) =>
					h(
						"td",
						{},
						cell(
							`${faceTitle(app, row)} with ${values.styles} styles of ${faceTitle(app, col)}. Open in the mixer`,
							() => app.change({ view: "mixer", faces: [row, col], take: { [values.styles]: 1 } }),
						).element,
					),
				),
			),
		);
		table.replaceChildren(
			h("caption", { class: "spoken" }, "Rows are faces, columns lend styles"),
			h("thead", {}, h("tr", {}, h("td", {}), head)),
			h("tbody", {}, body),
		);
	}

	return {
		element,
		controls,
		show: (values) => {
			styles.set(values.styles);
			const key = JSON.stringify([values.rows, values.cols, values.styles, app.faces]);
			if (key !== built) {
				built = key;
				keepFocus(table, () => fill(values));
			}
			const { rows, cols } = values;
			const plain = drawingQuery(values);
			const states = [
				...cols.map((face) => faceQuery(face)),
				...rows.flatMap((row) => [
					faceQuery(row),
					...cols.map((col) => ({ ...faceQuery(row), mix: `${values.styles}:${col}` })),
				]),
			];
			thumbs.forEach((thumb, place) => thumb.ask({ ...plain, ...states[place] }));
			commander.ask(
				{
					...plain,
					...side("row", rows),
					...side("col", cols),
					styles: values.styles,
				},
				"mix",
			);
		},
		rest: () => commander.stop(),
		stop: () => {
			commander.stop();
			thumbs.forEach((thumb) => thumb.stop());
		},
	};
}

export const mix = { title: "Mix", fields, build };
