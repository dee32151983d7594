// The page: its screens, its address, and what all screens share.

import { Address } from "./address.js";
import { directions } from "./directions.js";
import { face } from "./face.js";
import { acceptDrops } from "./faces.js";
import { mix } from "./mix.js";
import { button, choice, h, icon, menu } from "./parts.js";
import { Painter } from "./pictures.js";
import { query, server } from "./server.js";
import { sheet } from "./sheet.js";
import { training } from "./training.js";
import { walk } from "./walk.js";

const SCREENS = { face, mix, walk, directions, training, sheet };
const at = (id) => document.getElementById(id);

// "00003-cats, 816 kimg (best)": a run's snapshot, or the name of a file.
function networkTitle({ name, run, kimg, best }) {
	if (!run) return name === "shipped" ? "comes with stylecli" : name;
	return `${run.split("/").pop()}, ${Number(kimg.toPrecision(4))} kimg${best ? " (best)" : ""}`;
}

class App {
	constructor() {
		this.server = server;
		this.painter = new Painter(async (address, signal, name) => ({
			address,
			blob: await server.blob(address, { signal, place: name }),
		}));
		this.address = new Address(
			Object.fromEntries(Object.entries(SCREENS).map(([name, screen]) => [name, screen.fields])),
			() => this.arrive(),
		);
		[this.screen, this.built, this.network, this.meeting, this.networks, this.faces, this.directions] = [
			null,
			null,
			null,
			null,
			[],
			[],
			[],
		];
		this.say = (text) => {
			at("said").textContent = "";
			setTimeout(() => {
				at("said").textContent = text;
			}, 30);
			this.hint(text);
		};
		server.told = (news) => this.hear(news);
	}

	async start() {
		this.pixels(localStorage.getItem("stylecli-pixels") ?? "smooth");
		acceptDrops(document.body, (file) => this.take(file));
		at("skip").addEventListener("click", () => at("main").focus());
		if (!(await server.unlock())) return this.lock();
		this.address.parse();
		await this.open();
	}

	// Fetch what every screen needs, then show the one that the address names.
	async open() {
		try {
			const { networks, chosen } = await server.json("/api/networks");
			[this.networks, this.chosen] = [networks, chosen];
			await this.arrive();
		} catch (error) {
			if (!error.lost && error.status !== 401) this.report(error);
		}
	}

	// Show what the address names. It may change while a network is fetched: the last state wins.
	async arrive() {
		const wanted = this.address.values.network || this.chosen;
		if (!this.meeting || this.wanted !== wanted) this.meeting = this.meet(wanted);
		try {
			await this.meeting;
		} catch (error) {
			if (this.wanted !== wanted) return undefined;
			this.meeting = null; // the next arrival asks again
			return error.status === 401 || error.lost ? undefined : this.report(error);
		}
		if (this.wanted !== wanted) return undefined;
		const { screen, values } = this.address;
		if (this.screen !== screen || this.built?.network !== this.network) this.build(screen);
		this.links();
		this.built.show(values, true);
		return undefined;
	}

	async meet(name) {
		this.wanted = name;
		const [network, faces, known] = await Promise.all([
			server.json("/api/network", { network: name }),
			server.json("/api/faces", { network: name }),
			server.json("/api/directions", { network: name }),
		]);
		if (this.wanted !== name) return;
		[this.network, this.faces, this.directions] = [network, faces.faces, known.directions];
		this.why = known.why; // there are no directions
		document.documentElement.style.setProperty("--aspect", `${network.width} / ${network.height}`);
	}

	// Directions that need nothing but the weights; then the screens are built anew.
	async findDirections() {
		const { wanted } = this;
		const known = await server.send(`/api/directions?${query({ network: wanted })}`, {});
		if (this.wanted !== wanted) return;
		[this.directions, this.why] = [known.directions, known.why];
		this.build(this.screen);
		this.built.show(this.address.values, true);
		at("main").focus({ preventScroll: true });
		this.say(`${this.directions.length} directions.`);
	}

	async refreshFaces() {
		this.faces = (await server.json("/api/faces", { network: this.wanted })).faces;
	}

	// A photograph that is dropped anywhere goes into the mixer.
	async take(file) {
		if (!this.network) return;
		if (!this.network.has_w) {
			this.say("This network has no styles, so photographs cannot be mixed.");
			return;
		}
		if (this.screen !== "mix") await this.go("mix", {});
		if (this.address.values.view !== "mixer") this.change({ view: "mixer" });
		this.built.photograph(file);
	}

	build(name) {
		const arrived = this.screen !== null && this.screen !== name;
		this.built?.stop();
		this.screen = name;
		this.built = SCREENS[name].build(this);
		this.built.network = this.network;
		document.title = `${SCREENS[name].title} · stylecli explore`;
		at("main").className = `screen ${name}`;
		at("main").replaceChildren(this.built.element);
		this.settings();
		if (arrived) {
			at("main").focus({ preventScroll: true });
			scrollTo(0, 0);
		}
	}

	// Change the state; a settled change is one that "back" returns from.
	change(changes, settled = true) {
		this.address.set(changes, settled);
		if ("network" in changes) return this.arrive();
		if (settled) this.links(); // not at every move of a slider
		this.built.show(this.address.values, settled);
		return undefined;
	}

	go(screen, values) {
		const { network } = this.address.values;
		this.address.go(screen, { ...(network ? { network } : {}), ...values });
		return this.arrive();
	}

	// The bar of screens: each keeps the network and the way of drawing.
	links() {
		const { values } = this.address;
		at("screens").replaceChildren(
			...Object.entries(SCREENS).map(([name, screen]) => {
				const shared = Object.fromEntries(
					Object.keys(screen.fields)
						.filter((field) => ["network", "psi"].includes(field))
						.map((field) => [field, values[field]]),
				);
				return h(
					"li",
					{},
					h(
						"a",
						{ href: this.address.write(name, shared), "aria-current": name === this.screen ? "page" : null },
						icon(name),
						h("span", {}, screen.title),
					),
				);
			}),
		);
	}

	settings() {
		const names = this.networks.map((network) => [network.name, networkTitle(network)]);
		if (!names.some(([name]) => name === this.wanted)) names.push([this.wanted, this.wanted]);
		const networks = menu({
			label: "Network",
			choices: names,
			value: this.wanted,
			hidden: true,
			change: (value) => this.change({ network: value }),
		});
		const pixels = choice({
			label: "Pixels",
			hidden: true,
			choices: [
				["sharp", "Sharp"],
				["smooth", "Smooth"],
			],
			value: this.look,
			change: (value) => this.pixels(value),
		});
		at("settings").replaceChildren(networks.element, pixels.element);
	}

	pixels(look) {
		this.look = look === "smooth" ? "smooth" : "sharp";
		document.documentElement.dataset.pixels = this.look;
		localStorage.setItem("stylecli-pixels", this.look);
		dispatchEvent(new Event("resize"));
	}

	// A short confirmation that everyone sees, too.
	hint(text) {
		const toast = h("p", { class: "toast", "aria-hidden": "true" }, text);
		document.querySelector(".toast")?.remove();
		(document.querySelector("dialog[open]") ?? document.body).append(toast);
		setTimeout(() => toast.remove(), 2500);
	}

	report(error) {
		this.built?.stop();
		[this.built, this.screen] = [null, null];
		at("main").replaceChildren(
			h(
				"section",
				{ class: "message" },
				h("h1", {}, "This cannot be shown"),
				h("p", { role: "alert" }, error.message),
				button("Start again", () => (this.chosen ? this.go("face", { network: "" }) : this.open()), { kind: "strong" }),
			),
		);
	}

	hear(news) {
		const banner = at("banner");
		if (news === "locked") return this.lock();
		banner.hidden = news !== "lost";
		banner.textContent =
			news === "lost" ? "The server does not answer. Is stylecli explore still running? Trying again …" : "";
		this.painter.pause(news === "lost");
		if (news === "back") {
			this.say("The server is back.");
			if (!this.meeting) this.open();
			else this.built?.show(this.address.values, true);
		}
		return undefined;
	}

	// Without its token the server answers nothing: ask for the address that it printed.
	lock() {
		at("banner").hidden = true;
		this.built?.stop();
		[this.built, this.screen, this.network, this.meeting] = [null, null, null, null];
		const field = h("input", {
			type: "text",
			id: "token",
			autocomplete: "off",
			spellcheck: false,
			placeholder: "http://127.0.0.1:8765/#token=…",
		});
		const open = async (event) => {
			event.preventDefault();
			if (await server.unlock(field.value.includes("token=") ? field.value : `token=${field.value.trim()}`))
				await this.open();
		};
		at("main").replaceChildren(
			h(
				"form",
				{ class: "message", onsubmit: open },
				h("h1", {}, "Open the address that stylecli explore printed"),
				h(
					"p",
					{},
					"It contains a token, so that nobody else on this machine can use the page. A new one is made whenever stylecli explore starts.",
				),
				h("div", { class: "control" }, h("label", { htmlFor: "token" }, "Or paste it here"), field),
				h("button", { type: "submit", class: "button strong" }, "Open"),
			),
		);
	}
}

new App().start();
