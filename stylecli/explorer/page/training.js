// Training: the runs of this folder as they go, and their snapshots side by side.

import { list, number, word } from "./address.js";
import { chartFigure } from "./charts.js";
import { button, group, h, menu, seedField, slider } from "./parts.js";
import { query, server } from "./server.js";
import { Thumb } from "./stage.js";

const EVERY = 4000; // ms between looks at a run that is in progress
const COMPARED = 6; // seeds side by side

const fields = {
	network: word(),
	psi: number(),
	run: word(),
	sheet: number(),
	left: word(),
	right: word(),
	seeds: list(["0", "1", "2", "3", "4", "5"], COMPARED),
};

const kimg = (value) => `${Number(Number(value ?? 0).toPrecision(4))} kimg`;
const hours = (seconds) => (seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`);

function build(app) {
	const now = () => app.address.values;
	const runs = h("ul", { class: "runs" });
	const heading = h("h2", { class: "run-title" });
	const facts = h("dl", { class: "facts" });
	const reason = h("p", { class: "hint" });
	const charts = h("div", { class: "charts" });
	const events = h("section", { class: "group" });
	const sheets = buildSheets(app);
	const compare = buildCompare(app);
	const problem = h("p", { class: "problem", role: "alert" });
	const empty = h(
		"p",
		{ class: "hint", hidden: true },
		"No runs in this folder yet. Start one with ",
		h("code", {}, "stylecli train"),
		": it appears here while it trains.",
	);
	const body = h("div", { class: "run" }, heading, facts, reason, events, sheets.element, charts, compare.element);
	const element = h(
		"div",
		{ class: "wide" },
		h(
			"div",
			{ class: "panel" },
			h("h1", {}, "Training"),
			h("p", { class: "intro" }, "The runs of this folder. Those in progress are followed live."),
			empty,
			runs,
			problem,
		),
		body,
	);
	body.hidden = true;
	let [timer, etag, shown, list_, stopped] = [0, null, null, [], false];

	async function look() {
		clearTimeout(timer);
		if (stopped) return;
		try {
			if (!document.hidden) await refresh();
			problem.textContent = "";
		} catch (error) {
			if (!error.lost) problem.textContent = error.message;
		}
		if (!stopped) timer = setTimeout(look, EVERY);
	}

	async function refresh() {
		list_ = (await server.json("/api/runs")).runs;
		const run = now().run || list_[0]?.name;
		fill(run);
		if (!run) return;
		const answer = await server.request(`/api/run?${query({ run })}`, {
			headers: etag && shown === run ? { "If-None-Match": etag } : {},
		});
		if (answer.status === 304 || run !== (now().run || list_[0]?.name)) return;
		etag = answer.headers.get("ETag");
		draw(await answer.json(), run);
		shown = run;
	}

	function fill(chosen) {
		empty.hidden = list_.length > 0;
		const key = JSON.stringify([list_, chosen]);
		if (key === runs.dataset.key) return;
		runs.dataset.key = key;
		const place = [...runs.querySelectorAll("button")].indexOf(document.activeElement);
		runs.replaceChildren(
			...list_.map((run) =>
				h(
					"li",
					{},
					h(
						"button",
						{
							type: "button",
							class: "run-choice",
							"aria-pressed": String(run.name === chosen),
							onclick: () => app.change({ run: run.name, sheet: null, left: "", right: "" }),
						},
						h("strong", {}, run.title ?? run.name),
						h("span", {}, `${run.state} · ${kimg(run.kimg)}${run.total_kimg ? ` of ${kimg(run.total_kimg)}` : ""}`),
						run.total_kimg ? h("progress", { max: run.total_kimg, value: run.kimg, "aria-label": "Progress" }) : null,
					),
				),
			),
		);
		if (place >= 0) runs.querySelectorAll("button")[place]?.focus();
	}

	function draw(run, name) {
		body.hidden = false;
		heading.textContent = list_.find((one) => one.name === name)?.title ?? name;
		const fact = (title, value) => h("div", {}, h("dt", {}, title), h("dd", {}, value));
		facts.replaceChildren(
			fact("State", run.state),
			fact("Images shown", kimg(run.kimg)),
			run.total_kimg ? fact("Planned", kimg(run.total_kimg)) : "",
			run.seconds ? fact("Time", hours(run.seconds)) : "",
			...(run.metrics ?? [])
				.slice(-4)
				.map((metric) =>
					fact(metric.title ?? metric.name, String(metric.text ?? Number(Number(metric.value).toPrecision(4)))),
				),
		);
		reason.textContent = run.reason ?? "";
		reason.hidden = !run.reason;
		const told = (run.events ?? []).slice(-12).reverse();
		events.hidden = !told.length;
		events.replaceChildren(
			h("h2", {}, "Events"),
			h(
				"ul",
				{ class: "events" },
				told.map((event) =>
					h("li", { class: event.grave ? "grave" : "" }, h("span", {}, kimg(event.kimg)), event.text || event.event),
				),
			),
		);
		charts.replaceChildren(...run.charts.map(chartFigure));
		sheets.set(run, name);
		compare.set(run, name, now());
	}

	return {
		element,
		show: (values) => {
			if (shown !== (values.run || list_[0]?.name)) {
				etag = null;
				look();
			} else {
				fill(shown);
				sheets.show(values);
				compare.show(values);
			}
		},
		start: look,
		stop: () => {
			stopped = true;
			clearTimeout(timer);
			sheets.stop();
			compare.stop();
		},
	};
}

// Sheets of fakes over time, under a slider.
function buildSheets(app) {
	const picture = h("img", { alt: "", class: "pixels sheet-of-run" });
	const range = slider({
		label: "Sheet of fakes",
		min: 0,
		max: 1,
		step: 1,
		value: 0,
		change: (place) => app.change({ sheet: all[place] ?? null }, false),
	});
	const title = h("p", { class: "chosen" });
	const element = h(
		"section",
		{ class: "group over-time" },
		h("h2", {}, "Pictures over time"),
		picture,
		title,
		range.element,
	);
	let [all, run] = [[], null];
	const place = app.painter.place({
		name: "sheet",
		first: true,
		show: ({ blob }) => {
			const before = picture.src;
			picture.src = URL.createObjectURL(blob);
			if (before.startsWith("blob:")) URL.revokeObjectURL(before);
		},
		fail: (error) => {
			title.textContent = error.message;
		},
	});
	const show = (values) => {
		element.hidden = !all.length;
		if (!all.length) return;
		const nimg = all.includes(values.sheet) ? values.sheet : all.at(-1);
		range.set(all.indexOf(nimg));
		title.textContent = `After ${kimg(nimg / 1000)}`;
		picture.alt = `Fakes after ${kimg(nimg / 1000)}`;
		place.ask(`/api/run/sheet?${query({ run, nimg })}`);
	};
	return {
		element,
		show,
		set: (facts, name) => {
			[all, run] = [facts.sheets ?? [], name];
			range.range.max = Math.max(all.length - 1, 1);
			range.element.hidden = all.length < 2;
			show(app.address.values);
		},
		stop: () => place.drop(),
	};
}

// The same seeds drawn by two snapshots.
function buildCompare(app) {
	const change = (changes) => app.change(changes);
	const sides = ["left", "right"].map((side) =>
		menu({
			label: side === "left" ? "Earlier" : "Later",
			choices: [],
			value: "",
			change: (value) => change({ [side]: value }),
		}),
	);
	const first = seedField({
		label: "First seed",
		value: 0,
		change: (value, settled) =>
			app.change({ seeds: Array.from({ length: COMPARED }, (_, place) => String(value + place)) }, settled),
	});
	const rows = h("div", { class: "compare" });
	const element = h(
		"section",
		{ class: "group" },
		h("h2", {}, "Compare snapshots"),
		h(
			"div",
			{ class: "beside" },
			sides.map((side) => side.element),
			first.element,
		),
		rows,
		button("Explore the later one", () => app.go("face", { network: chosen(app.address.values)[1] }), { icon: "face" }),
	);
	let [names, thumbs] = [[], []];
	const chosen = (values) => [
		names.includes(values.left) ? values.left : names[0],
		names.includes(values.right) ? values.right : names.at(-1),
	];
	const show = (values) => {
		element.hidden = names.length < 2;
		if (element.hidden) return;
		const pair = chosen(values);
		sides.forEach((side, place) => side.set(pair[place]));
		first.set(Number(values.seeds[0]) || 0);
		if (thumbs.length !== 2 * values.seeds.length) {
			thumbs.forEach((thumb) => thumb.stop());
			thumbs = pair.flatMap(() => values.seeds.map(() => new Thumb(app)));
			rows.replaceChildren(
				...pair.map((_, row) =>
					h(
						"div",
						{ class: "tiles" },
						thumbs.slice(row * values.seeds.length, (row + 1) * values.seeds.length).map((thumb) => thumb.picture),
					),
				),
			);
		}
		pair.forEach((network, row) =>
			values.seeds.forEach((seed, place) =>
				thumbs[row * values.seeds.length + place].ask({ network, seed }, `Seed ${seed} by ${network}`),
			),
		);
	};
	return {
		element,
		show,
		set: (run, _, values) => {
			if (names.join() !== (run.snapshots ?? []).join()) {
				names = run.snapshots ?? [];
				sides.forEach((side) => side.fill(names.map((name) => [name, name])));
			}
			show(values);
		},
		stop: () => thumbs.forEach((thumb) => thumb.stop()),
	};
}

export const training = { title: "Training", fields, build };
