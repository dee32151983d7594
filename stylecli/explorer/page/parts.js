// Controls that the screens share. Text from the server only ever becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";
let counter = 0;

// Make an element: h("p", {class: "note", onclick: f}, "text", child, ...). Null children are left out.
export function h(tag, properties = {}, ...children) {
	const element = document.createElement(tag);
	for (const [name, value] of Object.entries(properties)) {
		if (value === null || value === undefined || value === false) continue;
		if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
		else if (name in element && !name.includes("-") && name !== "list") setProperty(element, name, value);
		else element.setAttribute(name, value === true ? "" : value);
	}
	element.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
	return element;
}

function setProperty(element, name, value) {
	if (name === "class") element.className = value;
	else if (name === "style") Object.assign(element.style, value);
	else element[name] = value;
}

export function icon(name) {
	const drawing = document.createElementNS(SVG, "svg");
	const use = document.createElementNS(SVG, "use");
	use.setAttribute("href", `#icon-${name}`);
	drawing.setAttribute("class", "icon");
	drawing.setAttribute("aria-hidden", "true");
	drawing.append(use);
	return drawing;
}

export const newId = (word) => `${word}-${++counter}`;
export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
export const rollSeed = () => crypto.getRandomValues(new Uint32Array(1))[0] % 100000;
// A number as a person writes it: no trailing zeros, never "-0" or "1e-7".
export const short = (value, digits = 2) => String(Number(Number(value).toFixed(digits)) || 0);

// A button with a word, an icon, or both. An icon alone needs `label`.
export function button(word, onclick, { icon: name, label, kind = "", ...rest } = {}) {
	return h(
		"button",
		{
			type: "button",
			class: `button ${kind} ${word ? "" : "bare"}`,
			"aria-label": label,
			title: word ? null : label,
			onclick,
			...rest,
		},
		name ? icon(name) : null,
		word ? h("span", {}, word) : null,
	);
}

// A slider with a field for the exact number. `change(value, settled)`: settled once the hand is off.
export function slider({ label, min, max, step, value, change, note = null, mark = null }) {
	const id = newId("slider");
	const range = h("input", { type: "range", id, min, max, step, value });
	const number = h("input", {
		type: "number",
		class: "exact",
		min,
		max,
		step,
		value,
		"aria-label": `${label}, exact value`,
	});
	const paint = () => range.style.setProperty("--filled", `${(100 * (range.value - min)) / (max - min)}%`);
	const set = (next) => {
		range.value = next;
		if (document.activeElement !== number) number.value = short(next, 3);
		paint();
	};
	range.addEventListener("input", () => {
		set(range.value);
		change(Number(range.value), false);
	});
	range.addEventListener("change", () => change(Number(range.value), true));
	number.addEventListener("change", () => {
		const next = Number.isFinite(number.valueAsNumber) ? clamp(number.valueAsNumber, min, max) : Number(range.value);
		number.value = short(next, 3);
		range.value = next;
		paint();
		change(next, true);
	});
	if (mark !== null)
		range.addEventListener("dblclick", () => {
			set(mark);
			change(mark, true);
		});
	const element = h(
		"div",
		{ class: "control slider" },
		h("label", { htmlFor: id }, label),
		number,
		range,
		note ? h("p", { class: "hint" }, note) : null,
	);
	set(value);
	return {
		element,
		set,
		range,
		disable: (off) => {
			range.disabled = number.disabled = off;
		},
	};
}

// A whole number with buttons to step it and, for seeds, dice.
export function seedField({ label, value, change, dice = true }) {
	const id = newId("seed");
	const field = h("input", { type: "number", id, min: 0, max: 4294967295, step: 1, value, inputMode: "numeric" });
	const give = (next) => {
		field.value = next;
		change(next, true);
	};
	const current = () => clamp(Math.trunc(field.valueAsNumber) || 0, 0, 4294967295);
	field.addEventListener("input", () => {
		if (field.value !== "") change(current(), false);
	});
	field.addEventListener("change", () => give(current()));
	const element = h(
		"div",
		{ class: "control seed" },
		h("label", { htmlFor: id }, label),
		h(
			"div",
			{ class: "joined" },
			button("", () => give(Math.max(0, current() - 1)), { icon: "less", label: `${label}: the one before` }),
			field,
			button("", () => give(current() + 1), { icon: "more", label: `${label}: the next` }),
			dice
				? button("", () => give(rollSeed()), { icon: "dice", label: `${label}: roll the dice`, kind: "dice" })
				: null,
		),
	);
	return {
		element,
		field,
		set: (next) => {
			if (document.activeElement !== field) field.value = next;
		},
	};
}

// One of a few: radio buttons that look like one bar. `choices`: [[value, word], ...].
export function choice({ label, choices, value, change, hidden = false }) {
	const name = newId("choice");
	const inputs = choices.map(([each]) =>
		h("input", { type: "radio", name, value: each, onchange: () => change(each, true) }),
	);
	const element = h(
		"fieldset",
		{ class: "control choice" },
		h("legend", { class: hidden ? "spoken" : "" }, label),
		h(
			"div",
			{ class: "segments" },
			choices.map(([, word], place) => h("label", {}, inputs[place], h("span", {}, word))),
		),
	);
	const set = (next) =>
		inputs.forEach((input) => {
			input.checked = input.value === String(next);
		});
	set(value);
	return { element, set };
}

export function menu({ label, choices, value, change, hidden = false }) {
	const id = newId("menu");
	const select = h("select", { id, onchange: () => change(select.value, true) });
	const fill = (next) => select.replaceChildren(...next.map(([each, word]) => h("option", { value: each }, word)));
	fill(choices);
	const set = (next) => {
		select.value = String(next);
	};
	set(value);
	return {
		element: h(
			"div",
			{ class: "control menu" },
			h("label", { htmlFor: id, class: hidden ? "spoken" : "" }, label),
			select,
		),
		set,
		fill,
		select,
	};
}

export function tick({ label, value, change }) {
	const box = h("input", { type: "checkbox", checked: value, onchange: () => change(box.checked, true) });
	return {
		element: h("label", { class: "control tick" }, box, h("span", {}, label)),
		set: (next) => {
			box.checked = next;
		},
		checked: () => box.checked,
	};
}

// A part of the panel under its own heading, and one that opens and closes.
export function group(title, ...children) {
	return h("section", { class: "group" }, title ? h("h2", {}, title) : null, ...children);
}

export function fold(title, ...children) {
	return h("details", {}, h("summary", {}, title), ...children);
}

// Copy, and report it where a screen reader hears it.
export async function copyText(text, say) {
	try {
		await navigator.clipboard.writeText(text);
	} catch {
		const area = h("textarea", { value: text, class: "spoken" });
		document.body.append(area);
		area.select();
		document.execCommand("copy"); // where the clipboard is refused, such as over plain http
		area.remove();
	}
	say("Copied.");
}

export function saveBlob(blob, name) {
	const link = h("a", { href: URL.createObjectURL(blob), download: name });
	document.body.append(link);
	link.click();
	link.remove();
	setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// "The command that makes this", with its button.
export class CommandLine {
	constructor(say) {
		this.code = h("code", {});
		const copy = button("Copy", () => copyText(this.code.textContent, say), {
			icon: "copy",
			label: "Copy the command",
		});
		this.element = h(
			"div",
			{ class: "command", hidden: true },
			h("span", { class: "command-title" }, "The command that makes this"),
			h("pre", { tabIndex: 0, "aria-label": "Command" }, this.code),
			copy,
		);
	}

	set(command) {
		this.code.textContent = command ?? "";
		this.element.hidden = !command;
		this.wait(false);
	}

	wait(busy) {
		this.element.setAttribute("aria-busy", String(busy));
	}
}

const MOST_ENLARGED = 24; // CSS pixels for a pixel, at the usual size of type: beyond it, only blocks are seen

// A picture as large as its place allows: whole pixels when sharp, any size when smooth.
export class Frame {
	constructor({ label = "", canvas = false } = {}) {
		this.picture = canvas ? h("canvas", { role: "img" }) : h("img", { alt: "", decoding: "sync", draggable: true });
		this.note = h("p", { class: "frame-note" });
		this.element = h(
			"figure",
			{ class: "frame blank" },
			this.picture,
			this.note,
			h("div", { class: "busy", "aria-hidden": "true" }),
		);
		[this.width, this.height] = [0, 0];
		this.describe(label);
		new ResizeObserver(() => this.fit()).observe(this.element);
	}

	describe(label) {
		if (this.picture.tagName === "IMG") this.picture.alt = label;
		else this.picture.setAttribute("aria-label", label);
	}

	async show(blob) {
		if (this.picture.tagName === "IMG") {
			const address = URL.createObjectURL(blob);
			const before = this.picture.src;
			this.picture.src = address;
			try {
				await this.picture.decode();
			} catch {
				/* replaced meanwhile, or no picture: onerror below */
			}
			if (before.startsWith("blob:")) URL.revokeObjectURL(before);
			this.resize(this.picture.naturalWidth, this.picture.naturalHeight);
		} else {
			this.draw(await createImageBitmap(blob));
		}
		this.tell("");
	}

	draw(bitmap) {
		if (this.picture.width !== bitmap.width || this.picture.height !== bitmap.height) {
			[this.picture.width, this.picture.height] = [bitmap.width, bitmap.height];
		}
		this.picture.getContext("2d").drawImage(bitmap, 0, 0);
		this.resize(bitmap.width, bitmap.height);
		this.tell("");
	}

	resize(width, height) {
		if (width === this.width && height === this.height) return;
		[this.width, this.height] = [width, height];
		this.element.classList.remove("blank");
		this.fit();
	}

	fit() {
		if (!this.width) return;
		const room = this.element.getBoundingClientRect();
		const most = MOST_ENLARGED * (parseFloat(getComputedStyle(document.documentElement).fontSize) / 16);
		const free = Math.min(room.width / this.width, room.height / this.height, most);
		const dots = free * devicePixelRatio;
		const sharp = document.documentElement.dataset.pixels !== "smooth";
		const scale = sharp && dots >= 2 ? Math.floor(dots) / devicePixelRatio : free;
		Object.assign(this.picture.style, { width: `${this.width * scale}px`, height: `${this.height * scale}px` });
	}

	// A sentence instead of the picture's news: an error, or "" for none.
	tell(sentence) {
		this.note.textContent = sentence;
		this.element.classList.toggle("failed", Boolean(sentence));
	}

	wait(busy) {
		this.element.classList.toggle("waiting", busy);
	}
}
