// Sheet: a wall of seeds to keep or discard, and a contact sheet of those that were kept.

import { list, oneOf, whole } from "./address.js";
import { DRAWING, drawingControls, drawingQuery } from "./drawing.js";
import { button, choice, group, h, saveBlob, seedField } from "./parts.js";
import { query, server } from "./server.js";
import { Commander, shareButton, Thumb } from "./stage.js";

const PAGE = 48; // seeds at first, and by each "more"

const fields = {
	...DRAWING,
	from: whole(0),
	count: whole(PAGE),
	keep: list(),
	drop: list(),
	only: oneOf("all", "all", "kept"),
};

// "0-3,7": seeds as the command line writes them.
export function seedText(seeds) {
	const parts = [];
	for (const seed of seeds.map(Number)) {
		if (parts.length && parts.at(-1)[1] === seed - 1) parts.at(-1)[1] = seed;
		else parts.push([seed, seed]);
	}
	return parts.map(([first, last]) => (first === last ? first : `${first}-${last}`)).join(",");
}

function build(app) {
	const now = () => app.address.values;
	const wall = h("ul", { class: "wall" });
	const commander = new Commander(app);
	const more = button("More", () => app.change({ count: now().count + PAGE }), { icon: "add" });
	const tally = h("p", { class: "chosen" });
	const from = seedField({
		label: "From seed",
		value: 0,
		change: (value, settled) => {
			if (settled) app.change({ from: value, count: PAGE });
		},
	});
	const only = choice({
		label: "Show",
		choices: [
			["all", "All"],
			["kept", "Kept"],
		],
		value: "all",
		change: (value) => app.change({ only: value }),
	});
	const contact = button("Save the contact sheet", () => saveSheet(), { icon: "save", kind: "strong" });
	const toMix = button("Mix them", () => app.go("mix", { psi: now().psi, faces: now().keep.slice(0, 6) }), {
		icon: "mix",
	});
	const toWalk = button(
		"Walk through them",
		() => app.go("walk", { psi: now().psi, through: now().keep.slice(0, 24) }),
		{ icon: "walk" },
	);
	const clear = button("Start over", () => app.change({ keep: [], drop: [], only: "all" }), { kind: "quiet" });
	const problem = h("p", { class: "problem", role: "alert" });
	const drawing = drawingControls(app.network, (changes, settled) => app.change(changes, settled));
	const panel = h(
		"div",
		{ class: "panel" },
		h("h1", {}, "Sheet"),
		h(
			"p",
			{ class: "intro" },
			"Keep the faces you like, discard the others. With the keyboard: arrows move, K keeps, D discards, Enter opens.",
		),
		group(null, from.element, only.element),
		group(
			null,
			tally,
			h("div", { class: "actions" }, contact, app.network.has_w ? toMix : null, toWalk, clear),
			problem,
		),
		drawing.element,
	);
	const element = h(
		"div",
		{ class: "split" },
		h("div", { class: "view" }, wall, h("div", { class: "actions" }, more, shareButton(app)), commander.element),
		panel,
	);
	const tiles = new Map(); // seed -> {thumb, item, open}

	const chosen = () => (now().keep.length ? now().keep : shownSeeds(now()));

	function shownSeeds(values) {
		if (values.only === "kept") return values.keep;
		return Array.from({ length: Math.min(values.count, 2000) }, (_, place) => String(values.from + place)).filter(
			(seed) => !values.drop.includes(seed),
		);
	}

	const sheetQuery = () => ({ ...drawingQuery(now()), seeds: seedText(chosen()) });

	async function saveSheet() {
		problem.textContent = "";
		contact.disabled = true;
		try {
			saveBlob(await server.blob(`/api/sheet?${query(sheetQuery())}`), "contact-sheet.png");
			app.say("The contact sheet is saved.");
		} catch (error) {
			problem.textContent = error.message;
		}
		contact.disabled = false;
	}

	function judge(seed, name) {
		const { keep, drop } = now();
		const other = name === "keep" ? "drop" : "keep";
		const list_ = now()[name];
		const next = list_.includes(seed) ? list_.filter((each) => each !== seed) : [...list_, seed].sort((a, b) => a - b);
		if (name === "drop") moveFocus(seed, 1, -1);
		app.change({ [name]: next, [other]: { keep, drop }[other].filter((each) => each !== seed) });
		app.say(
			name === "drop"
				? `Seed ${seed} discarded.`
				: next.includes(seed)
					? `Seed ${seed} kept.`
					: `Seed ${seed} not kept.`,
		);
	}

	function moveFocus(seed, by, otherwise = 0) {
		const seeds = shownSeeds(now());
		const place = seeds.indexOf(seed);
		const target = seeds[place + by] ?? seeds[place + otherwise];
		if (target !== undefined && target !== seed) tiles.get(target)?.open.focus();
	}

	function press(event, seed) {
		if (event.ctrlKey || event.metaKey || event.altKey) return;
		const columns = getComputedStyle(wall).gridTemplateColumns.split(" ").length;
		const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
		if (event.key in moves) moveFocus(seed, moves[event.key]);
		else if (event.key.toLowerCase() === "k") judge(seed, "keep");
		else if (event.key.toLowerCase() === "d") judge(seed, "drop");
		else return;
		event.preventDefault();
	}

	function tile(seed) {
		const thumb = new Thumb(app);
		const open = h(
			"button",
			{
				type: "button",
				class: "tile",
				"aria-label": `Seed ${seed}: open`,
				onclick: () => app.go("face", { ...facePart(now()), seed: Number(seed) }),
			},
			thumb.picture,
			h("span", {}, seed),
		);
		const keep = button("", () => judge(seed, "keep"), { icon: "keep", label: `Keep seed ${seed}`, kind: "keep" });
		const drop = button("", () => judge(seed, "drop"), {
			icon: "remove",
			label: `Discard seed ${seed}`,
			kind: "discard",
		});
		const item = h("li", { onkeydown: (event) => press(event, seed) }, open, h("div", { class: "judge" }, keep, drop));
		return { thumb, item, open, keep };
	}

	const facePart = (values) => Object.fromEntries(Object.keys(DRAWING).map((name) => [name, values[name]]));

	function fill(seeds) {
		for (const [seed, { thumb, item }] of tiles) {
			if (!seeds.includes(seed)) {
				thumb.stop();
				item.remove();
				tiles.delete(seed);
			}
		}
		seeds.forEach((seed, place) => {
			if (!tiles.has(seed)) tiles.set(seed, tile(seed));
			const { item } = tiles.get(seed);
			if (wall.children[place] !== item) wall.insertBefore(item, wall.children[place] ?? null);
		});
	}

	return {
		element,
		show: (values) => {
			from.set(values.from);
			only.set(values.only);
			drawing.set(values);
			const seeds = shownSeeds(values);
			fill(seeds);
			const plain = drawingQuery(values);
			for (const [seed, { thumb, item, keep }] of tiles) {
				const kept = values.keep.includes(seed);
				item.classList.toggle("kept", kept);
				keep.setAttribute("aria-pressed", String(kept));
				thumb.ask({ ...plain, seed }, "");
			}
			tally.textContent = values.keep.length
				? `${values.keep.length} kept${values.drop.length ? `, ${values.drop.length} discarded` : ""}`
				: "None kept yet: the contact sheet shows all.";
			[toMix.disabled, toWalk.disabled, more.hidden] = [
				values.keep.length < 2,
				values.keep.length < 2,
				values.only === "kept",
			];
			if (seeds.length) commander.ask(sheetQuery(), "sheet");
		},
		stop: () => {
			commander.stop();
			tiles.forEach(({ thumb }) => thumb.stop());
		},
	};
}

export const sheet = { title: "Sheet", fields, build };
