// Every state has an address: #screen?name=value. What a screen shows follows from it alone.

// Kinds of field: how a value is read from the address, and written to it. `null` means "not there".
export const whole = (fallback = 0) => ({
	fallback,
	read: (text) => (/^\d{1,10}$/.test(text) ? Number(text) : fallback),
	write: String,
});
export const number = (fallback = null) => ({
	fallback,
	read: (text) => (text !== "" && Number.isFinite(Number(text)) ? Number(text) : fallback),
	write: (value) => String(Number(Number(value).toFixed(4))),
});
export const word = (fallback = "") => ({ fallback, read: (text) => text, write: String });
export const oneOf = (fallback, ...words) => ({
	fallback,
	read: (text) => (words.includes(text) ? text : fallback),
	write: String,
});
export const flag = (fallback = false) => ({
	fallback,
	read: (text) => text === "1",
	write: (value) => (value ? "1" : "0"),
});
// A comma or colon within a name is written %2C or %3A, so that lists can be split before they are read.
// None of them, or too many, is no state of a screen that has a list at first.
export const list = (fallback = [], most = Infinity) => ({
	fallback,
	read: (text) => (text ? text.split(",").slice(0, most).map(plain) : [...fallback]),
	write: (values) => values.map(guarded).join(","),
});
// name:number pairs, such as edits or a psi for each band.
export const numbers = () => ({
	fallback: {},
	read: (text) =>
		Object.fromEntries(
			text
				.split(",")
				.map((pair) => pair.split(":"))
				.filter(([name, value]) => name && value && Number.isFinite(Number(value)))
				.map(([name, value]) => [plain(name), Number(value)]),
		),
	write: (pairs) =>
		Object.entries(pairs)
			.map(([name, value]) => `${guarded(name)}:${Number(Number(value).toFixed(4))}`)
			.join(","),
});

const guarded = (name) => String(name).replace(/[%,:]/g, encodeURIComponent);

function plain(text) {
	try {
		return decodeURIComponent(text);
	} catch {
		return text; // an address that a person shortened
	}
}

const LATER = 300; // ms: browsers refuse to change the address at every move of a slider

export class Address {
	// `fields`: {screen: {name: kind}}; `changed` is called when back, forward or a link was used.
	constructor(fields, changed) {
		this.fields = fields;
		[this.timer, this.moving] = [0, false];
		this.parse();
		addEventListener("popstate", () => {
			clearTimeout(this.timer);
			this.moving = false;
			this.parse();
			changed();
		});
	}

	parse() {
		const [screen, query = ""] = location.hash.slice(1).split(/\?(.*)/s);
		this.screen = screen in this.fields ? screen : Object.keys(this.fields)[0];
		const given = new URLSearchParams(query);
		this.values = {};
		for (const [name, kind] of Object.entries(this.fields[this.screen])) {
			const text = given.get(name);
			this.values[name] = text === null ? structuredClone(kind.fallback) : kind.read(text);
		}
	}

	// The address of a screen in a state; fields at their fallback stay out of it.
	write(screen = this.screen, values = this.values) {
		const pairs = [];
		for (const [name, kind] of Object.entries(this.fields[screen])) {
			const value = values[name];
			if (value === null || value === undefined) continue;
			if (kind.fallback !== null && kind.write(value) === kind.write(kind.fallback)) continue;
			pairs.push(
				`${name}=${encodeURIComponent(kind.write(value)).replaceAll("%2C", ",").replaceAll("%3A", ":").replaceAll("%2F", "/")}`,
			);
		}
		return `#${screen}${pairs.length ? `?${pairs.join("&")}` : ""}`;
	}

	// Change fields. A settled change is a step of its own for "back"; while a slider moves, the
	// address follows in one step that its end completes.
	set(changes, settled) {
		Object.assign(this.values, changes);
		clearTimeout(this.timer);
		if (settled) this.enter(false);
		else this.timer = setTimeout(() => this.enter(true), LATER);
	}

	enter(moving) {
		const next = this.write();
		if (this.moving) history.replaceState(null, "", next);
		else if (next !== location.hash) history.pushState(null, "", next);
		this.moving = moving;
	}

	go(screen, values = {}) {
		clearTimeout(this.timer);
		this.moving = false;
		history.pushState(null, "", this.write(screen, values));
		this.parse();
	}
}
