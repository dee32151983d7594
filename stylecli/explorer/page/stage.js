// The large picture of a screen, what can be done with it, and the command that makes it.

import { button, CommandLine, copyText, Frame, h, saveBlob } from "./parts.js";
import { query, server } from "./server.js";

const CALM = 220; // ms without a change before the command is asked for

// Ask for the command of a state once the hand rests; an answer that came too late is dropped.
export class Commander {
	constructor(app) {
		this.line = new CommandLine(app.say);
		this.element = this.line.element;
		this.file = null;
		[this.timer, this.control, this.path] = [0, null, null];
	}

	ask(values, kind = null) {
		const path = `/api/command?${query({ ...values, kind })}`;
		if (path === this.path) return;
		this.path = path;
		this.line.wait(true); // until then, the one that is shown is of the state before
		clearTimeout(this.timer);
		this.control?.abort();
		this.timer = setTimeout(() => this.fetch(path), CALM);
	}

	async fetch(path) {
		this.control = new AbortController();
		try {
			const { command, file } = await server.json(path, {}, { signal: this.control.signal });
			if (path !== this.path) return;
			this.file = file ?? null;
			this.line.set(command);
		} catch (problem) {
			if (path !== this.path || problem.name === "AbortError") return;
			this.path = null;
			this.line.set(null); // the picture's own place reports what is wrong
		}
	}

	stop() {
		clearTimeout(this.timer);
		this.control?.abort();
		this.path = null;
		this.line.wait(false);
	}
}

export class Stage {
	// `actions`: buttons beside "Save" and "Share".
	constructor(app, { name = "main", label = "Picture", actions = [], canvas = false } = {}) {
		this.app = app;
		this.frame = new Frame({ label, canvas });
		this.commander = new Commander(app);
		this.loaded = null;
		this.place = app.painter.place({
			name,
			first: true,
			show: (loaded, newest) => this.show(loaded, newest),
			fail: (error) => this.frame.tell(error.message),
			busy: (busy) => this.frame.wait(busy),
		});
		this.saveButton = button("Save", () => this.save(), { icon: "save", label: "Save the picture", disabled: true });
		this.actions = h("div", { class: "actions" }, this.saveButton, ...actions, shareButton(app));
		this.element = h("div", { class: "view" }, this.frame.element, this.actions, this.commander.element);
		this.values = null;
		this.timer = 0;
	}

	// Draw a state. Where the network has a true preview, it comes first while the hand still moves.
	ask(values, settled = true, label = null) {
		this.values = values;
		if (label) this.frame.describe(label);
		clearTimeout(this.timer);
		if (!settled && this.app.network.has_preview) {
			this.place.ask(`/api/preview?${query(values)}`);
			this.timer = setTimeout(() => this.ask(values), CALM);
		} else {
			this.place.ask(`/api/picture?${query(values)}`);
		}
		this.commander.ask(values);
	}

	show(loaded, newest) {
		this.loaded = newest ? loaded : null;
		this.saveButton.disabled = !this.loaded;
		return this.frame.show(loaded.blob);
	}

	save() {
		if (!this.loaded) return;
		saveBlob(this.loaded.blob, this.commander.file?.split(/[\\/]/).pop() ?? "picture.png");
		this.app.say("Saved with the command that makes it.");
	}

	stop() {
		clearTimeout(this.timer);
		this.place.drop();
		this.commander.stop();
	}
}

export function shareButton(app) {
	return button("Link", () => copyText(location.href, (said) => app.say(said)), {
		icon: "link",
		label: "Link: copy the address of this state",
	});
}

// One watcher for all small pictures: those in sight ask, in the order in which they stand.
const sights = new WeakMap();
const watcher = new IntersectionObserver(
	(entries) => {
		for (const { target, isIntersecting } of entries) sights.get(target)?.sight(isIntersecting);
	},
	{ rootMargin: "120px" },
);

// A small picture: of a seed, a kept face, a key. It asks once it is in sight.
export class Thumb {
	constructor(app, label = "") {
		this.app = app;
		this.picture = h("img", { alt: label, class: "thumb", draggable: false });
		this.address = null;
		this.place = app.painter.place({
			name: "small",
			show: ({ blob }) => this.show(blob),
			fail: (error) => {
				this.picture.alt = error.message;
				this.picture.classList.add("failed");
			},
		});
		this.seen = false;
		sights.set(this.picture, this);
		watcher.observe(this.picture);
	}

	sight(seen) {
		this.seen = seen;
		if (seen && this.address) this.place.ask(this.address);
		else if (!seen) this.place.rest();
	}

	ask(values, label = null) {
		if (label) this.picture.alt = label;
		this.picture.classList.remove("failed");
		this.address = `/api/${this.app.network.has_preview ? "preview" : "picture"}?${query(values)}`;
		if (this.seen) this.place.ask(this.address);
	}

	show(blob) {
		const before = this.picture.src;
		this.picture.src = URL.createObjectURL(blob);
		if (before.startsWith("blob:")) URL.revokeObjectURL(before);
	}

	stop() {
		watcher.unobserve(this.picture);
		this.place.drop();
		if (this.picture.src.startsWith("blob:")) URL.revokeObjectURL(this.picture.src);
	}
}
