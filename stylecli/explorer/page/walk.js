// Walk: key faces on a line, the way between them, played in the page and saved as a video.

import { flag, list, number, oneOf, whole } from "./address.js";
import { DRAWING, drawingControls, drawingQuery, faceQuery } from "./drawing.js";
import { faceTitle, jobCard, pickFace } from "./faces.js";
import { button, choice, fold, Frame, group, h, icon, menu, rollSeed, saveBlob, slider, tick } from "./parts.js";
import { keepFocus } from "./mix.js";
import { present, query, server } from "./server.js";
import { Commander, shareButton, Thumb } from "./stage.js";

const MOST = 24; // key faces
const HELD = 192 * 2 ** 20; // bytes of frames that stay decoded, so that a loop plays smoothly again
const METHODS = { spline: "Smooth curve", lerp: "Straight lines", slerp: "Great circles", circle: "Circle around two" };
const FORMATS = { mp4: "MP4, for everything", webm: "WebM, for the web", gif: "GIF", webp: "WebP, animated" };

const fields = {
	...DRAWING,
	through: list(["0", "1", "2", "3"], MOST),
	method: oneOf("spline", ...Object.keys(METHODS)),
	space: oneOf("w", "w", "z"),
	loop: flag(true),
	key_seconds: number(2),
	fps: number(30),
	format: oneOf("mp4", ...Object.keys(FORMATS)),
	frame: whole(0),
	noise_motion: oneOf("still", "still", "flicker", "drift"),
};

function walkQuery(values) {
	const plain = (name) => (values[name] === fields[name].fallback ? null : values[name]);
	return {
		...drawingQuery(values),
		through: values.through,
		method: plain("method"),
		space: plain("space"),
		loop: values.loop ? null : "no",
		key_seconds: plain("key_seconds"),
		fps: plain("fps"),
		noise_motion: plain("noise_motion"),
	};
}

function build(app) {
	const now = () => app.address.values;
	const change = (changes, settled) => app.change(changes, settled);
	const player = new Player(app);
	const line = new KeyLine(app, player);
	const method = menu({
		label: "Way between faces",
		choices: Object.entries(METHODS),
		value: "spline",
		change: (value) => change({ method: value }),
	});
	const space = choice({
		label: "Walk in",
		choices: [
			["w", "w (styles)"],
			["z", "z (latents)"],
		],
		value: "w",
		change: (value) => change({ space: value }),
	});
	space.element.hidden = !app.network.has_w;
	const seconds = slider({
		label: "Seconds from face to face",
		min: 0.25,
		max: 6,
		step: 0.25,
		value: 2,
		mark: 2,
		change: (value, settled) => change({ key_seconds: value }, settled),
	});
	const loop = tick({
		label: "Return to the first face, an endless loop",
		value: true,
		change: (value) => change({ loop: value }),
	});
	const motion = choice({
		label: "Noise moves",
		choices: [
			["still", "Not"],
			["drift", "Slowly"],
			["flicker", "Every frame"],
		],
		value: "still",
		change: (value) => change({ noise_motion: value }),
	});
	motion.element.hidden = !app.network.has_noise;
	const exporter = buildExport(app, change);
	const drawing = drawingControls(app.network, change);
	const panel = h(
		"div",
		{ class: "panel" },
		h("h1", {}, "Walk"),
		h("p", { class: "intro" }, "A way through faces. Play it here, then save it as a video."),
		group(
			null,
			method.element,
			seconds.element,
			loop.element,
			fold("More about the way", space.element, motion.element),
		),
		exporter.element,
		drawing.element,
	);
	return {
		element: h(
			"div",
			{ class: "split" },
			h("div", { class: "view" }, player.frame.element, player.controls, line.element, player.commander.element),
			panel,
		),
		show: (values) => {
			method.set(values.method);
			space.set(values.space);
			seconds.set(values.key_seconds);
			loop.set(values.loop);
			motion.set(values.noise_motion);
			exporter.set(values);
			drawing.set(values);
			line.set(values);
			player.set(values);
		},
		stop: () => {
			player.stop();
			line.stop();
			exporter.stop();
		},
	};
}

class Player {
	constructor(app) {
		this.app = app;
		this.frame = new Frame({ label: "The walk", canvas: true });
		this.commander = new Commander(app);
		[this.path, this.info, this.at, this.playing, this.held] = [null, null, 0, false, new Map()];
		this.place = app.painter.place({
			name: "walk",
			first: true,
			show: async (loaded, newest) => this.arrived(loaded, newest),
			fail: (error) => {
				this.pause();
				this.frame.tell(error.message);
			},
			busy: (busy) => this.frame.wait(busy && !this.playing),
		});
		this.slider = h("input", { type: "range", min: 0, max: 0, step: 1, value: 0, "aria-label": "Frame" });
		this.slider.addEventListener("input", () => {
			this.pause();
			this.go(Number(this.slider.value));
			app.address.set({ frame: this.at }, false);
		});
		this.time = h("output", {});
		this.toggle = button("Play", () => (this.playing ? this.pause() : this.play()), {
			icon: "play",
			kind: "strong play",
		});
		this.controls = h("div", { class: "player" }, this.toggle, this.slider, this.time, shareButton(app));
	}

	async set(values) {
		const asked = query(walkQuery(values));
		if (asked === this.asked) {
			if (!this.playing && values.frame !== this.at) this.go(values.frame);
			return;
		}
		this.asked = asked;
		this.control?.abort();
		this.control = new AbortController();
		this.place.drop();
		this.commander.ask(walkQuery(values), "walk");
		try {
			const info = await server.json(`/api/walk?${asked}`, {}, { signal: this.control.signal });
			if (asked !== this.asked) return;
			this.release();
			[this.info, this.path] = [info, `/api/walk/frame?${asked}&scale=1`];
			this.slider.max = info.frames - 1;
			this.go(Math.min(this.playing ? this.at : values.frame, info.frames - 1));
		} catch (error) {
			if (error.name === "AbortError") return;
			this.asked = null;
			this.pause();
			this.frame.tell(error.message);
		}
	}

	go(frame) {
		if (!this.info) return;
		this.at = Math.min(frame, this.info.frames - 1);
		this.slider.value = this.at;
		const text = `${(this.at / this.info.fps).toFixed(1)} of ${(this.info.frames / this.info.fps).toFixed(1)} s`;
		this.time.textContent = text;
		this.slider.setAttribute("aria-valuetext", text);
		const held = this.held.get(this.at);
		if (held) {
			this.place.rest();
			this.frame.draw(held);
		} else this.place.ask(`${this.path}&frame=${this.at}`);
	}

	// Frames follow the clock: those for which there was no time are left out, as a video player does.
	play() {
		if (!this.info) return;
		this.playing = true;
		this.label("Pause", "pause");
		const start = performance.now() - (this.at >= this.info.frames - 1 ? 0 : (1000 * this.at) / this.info.fps);
		const step = (time) => {
			if (!this.playing) return;
			const frame = Math.floor(((time - start) / 1000) * this.info.fps);
			if (frame >= this.info.frames && !this.app.address.values.loop) {
				this.go(this.info.frames - 1);
				this.pause();
				return;
			}
			if (frame >= 0) this.go(frame % this.info.frames);
			requestAnimationFrame(step);
		};
		requestAnimationFrame(step);
	}

	pause() {
		if (!this.playing) return;
		this.playing = false;
		this.label("Play", "play");
		this.app.address.set({ frame: this.at }, false);
	}

	label(text, name) {
		this.toggle.replaceChildren(icon(name), h("span", {}, text));
	}

	async arrived(loaded) {
		const { path } = this;
		const bitmap = await createImageBitmap(loaded.blob);
		const [where, number] = loaded.address.split("&frame=");
		if (where !== path || path !== this.path) return bitmap.close(); // of another walk
		const frame = Number(number);
		if (!this.held.has(frame) && this.held.size * 4 * bitmap.width * bitmap.height < HELD) this.held.set(frame, bitmap);
		// Late frames show that it moves, but never replace the one that is due.
		if (frame === this.at || !this.held.has(this.at)) this.frame.draw(bitmap);
		return undefined;
	}

	release() {
		this.held.forEach((bitmap) => bitmap.close());
		this.held.clear();
	}

	stop() {
		this.playing = false;
		this.control?.abort();
		this.place.drop();
		this.commander.stop();
		this.release();
	}
}

// The key faces in their order: change, move, remove, add. Drag them, or use the buttons.
class KeyLine {
	constructor(app, player) {
		[this.app, this.player, this.thumbs, this.built] = [app, player, [], ""];
		this.items = h("ol", { class: "key-faces" });
		this.element = h(
			"section",
			{ class: "key-line", "aria-label": "Key faces" },
			this.items,
			h(
				"div",
				{ class: "actions" },
				button("Another face", () => this.add(), { icon: "add" }),
				button(
					"Roll all",
					() =>
						app.change({
							through: this.faces.map((face) => (/^\d+$/.test(face) ? String(rollSeed()) : face)),
							frame: 0,
						}),
					{ icon: "dice" },
				),
			),
		);
	}

	get faces() {
		return this.app.address.values.through;
	}

	async add() {
		if (this.faces.length >= MOST) {
			this.app.say(`A walk goes through ${MOST} faces at most: remove one first.`);
			return;
		}
		const face = await pickFace(this.app, "Another face");
		if (face !== null) this.app.change({ through: [...this.faces, face].slice(0, MOST), frame: 0 });
	}

	async replace(place) {
		const face = await pickFace(this.app, `Face ${place + 1}`, this.faces[place]);
		if (face !== null)
			this.app.change({ through: this.faces.map((one, each) => (each === place ? face : one)), frame: 0 });
	}

	move(from, to) {
		if (to < 0 || to >= this.faces.length || from === to) return;
		const faces = [...this.faces];
		faces.splice(to, 0, ...faces.splice(from, 1));
		this.app.change({ through: faces, frame: 0 });
		this.items.children[to]?.querySelector(".tile").focus();
		this.app.say(`Face ${from + 1} is now number ${to + 1}.`);
	}

	set(values) {
		const key = JSON.stringify([values.through, this.app.faces]);
		if (key !== this.built) {
			this.built = key;
			keepFocus(this.items, () => this.fill(values.through));
		}
		this.thumbs.forEach((thumb, place) =>
			thumb.ask({ ...drawingQuery(values), ...faceQuery(values.through[place]) }, ""),
		);
	}

	fill(faces) {
		this.stop();
		this.thumbs = faces.map(() => new Thumb(this.app));
		this.items.replaceChildren(
			...faces.map((face, place) => {
				const title = faceTitle(this.app, face);
				const word = `${title}, face ${place + 1}`;
				const item = h(
					"li",
					{ draggable: true },
					h(
						"button",
						{ type: "button", class: "tile", "aria-label": `${word}: change it`, onclick: () => this.replace(place) },
						this.thumbs[place].picture,
						h("span", {}, title),
					),
					h(
						"div",
						{ class: "joined tiny" },
						button("", () => this.move(place, place - 1), {
							icon: "less",
							label: `${word}: move it forward`,
							disabled: place === 0,
						}),
						button("", () => this.app.change({ through: faces.filter((_, each) => each !== place), frame: 0 }), {
							icon: "remove",
							label: `${word}: remove it`,
							disabled: faces.length < 3,
						}),
						button("", () => this.move(place, place + 1), {
							icon: "more",
							label: `${word}: move it back`,
							disabled: place === faces.length - 1,
						}),
					),
				);
				item.addEventListener("dragstart", (event) => {
					event.dataTransfer.setData("text/plain", String(place));
					event.dataTransfer.effectAllowed = "move";
					this.dragged = place;
				});
				item.addEventListener("dragover", (event) => {
					if (this.dragged !== null) event.preventDefault();
				});
				item.addEventListener("drop", (event) => {
					event.preventDefault();
					if (this.dragged !== null) this.move(this.dragged, place);
					this.dragged = null;
				});
				item.addEventListener("dragend", () => {
					this.dragged = null;
				});
				return item;
			}),
		);
	}

	stop() {
		this.thumbs.forEach((thumb) => thumb.stop());
	}
}

function moving(blob, name) {
	const source = URL.createObjectURL(blob);
	if (/\.(gif|webp)$/.test(name)) return h("img", { src: source, alt: "The video" });
	return h("video", { src: source, controls: true, loop: true, muted: true, "aria-label": "The video" });
}

function buildExport(app, change) {
	const format = menu({
		label: "File",
		choices: Object.entries(FORMATS),
		value: "mp4",
		change: (value) => change({ format: value }),
	});
	const fps = choice({
		label: "Frames per second",
		choices: [
			[15, "15"],
			[30, "30"],
			[60, "60"],
		],
		value: 30,
		change: (value) => change({ fps: Number(value) }),
	});
	const control = new AbortController();
	const progress = h("div", { class: "made" });
	const start = button("Make the video", () => make(), { icon: "walk" });

	async function make() {
		const { values } = app.address;
		await follow(async () => {
			const { job } = await server.send("/api/walk/export", {
				state: present(walkQuery(values)),
				format: values.format,
			});
			return job;
		}, true);
	}

	// Show a video as it is drawn, then the video; it is found again after a reload.
	async function follow(begin, asked) {
		const card = jobCard(app, "Drawing the video");
		progress.replaceChildren(card.element);
		if (asked) progress.scrollIntoView({ block: "nearest" });
		start.disabled = true;
		try {
			const job = await begin();
			const { files } = await card.follow(job, control.signal);
			const name = files[0].name;
			const blob = await server.blob(`/api/jobs/${encodeURIComponent(job)}/files/0`, { signal: control.signal });
			const download = button(`Download ${name}`, () => saveBlob(blob, name), { icon: "save", kind: "strong" });
			progress.replaceChildren(h("p", {}, "The video is ready."), moving(blob, name), download);
			if (asked) download.focus();
			if (asked) app.say("The video is ready.");
		} catch (error) {
			if (!control.signal.aborted) card.fail(error.message);
		}
		start.disabled = false;
	}

	async function resume() {
		const { jobs } = await server.json("/api/jobs", {}, { signal: control.signal });
		const last = jobs.findLast((job) => job.kind === "walk" && ["waiting", "running", "done"].includes(job.state));
		if (last && !progress.hasChildNodes()) await follow(async () => last.id, false);
	}
	resume().catch(() => {}); // nothing to find again

	return {
		element: group("Video", format.element, fps.element, start, progress),
		set: (values) => {
			format.set(values.format);
			fps.set(values.fps);
		},
		stop: () => control.abort(),
	};
}

export const walk = { title: "Walk", fields, build };
