// Faces that have names: choosing one, keeping one, and turning a photograph into one.

import { drawingQuery, faceQuery, isSeed } from "./drawing.js";
import { button, group, h, rollSeed, seedField, tick } from "./parts.js";
import { follow, present, query, server } from "./server.js";
import { Thumb } from "./stage.js";

const NAME_LETTERS = 60;
const PHOTOGRAPHS = "image/*,.heic,.heif,.avif";

export const faceTitle = (app, face) =>
	isSeed(face) ? `Seed ${face}` : (app.faces.find((one) => one.name === face)?.title ?? face);

// Ask for a face in a dialog: a seed, a kept face or a photograph. Resolves to null when closed.
export function pickFace(app, title, current = null) {
	return new Promise((done) => {
		const thumbs = [];
		let chosen = isSeed(current ?? "") ? Number(current) : rollSeed();
		const preview = new Thumb(app, "");
		thumbs.push(preview);
		const look = () => preview.ask({ ...drawingQuery(app.address.values), seed: chosen }, `Seed ${chosen}`);
		const close = (face) => {
			dialog.close();
			done(face);
		};
		const field = seedField({
			label: "Seed",
			value: chosen,
			change: (value) => {
				chosen = value;
				look();
			},
		});
		const kept = app.faces.map((face) => {
			const thumb = new Thumb(app, "");
			thumbs.push(thumb);
			thumb.ask({ network: app.address.values.network, face: face.name }, "");
			return h(
				"li",
				{},
				h(
					"button",
					{ type: "button", class: "tile", onclick: () => close(face.name) },
					thumb.picture,
					h("span", {}, face.title),
				),
			);
		});
		const photograph = photographDrop(app, (face) => close(face));
		const dialog = h(
			"dialog",
			{
				class: "dialog",
				"aria-label": title,
				onclose: () => {
					thumbs.forEach((thumb) => thumb.stop());
					photograph.stop();
					dialog.remove();
					done(null);
				},
			},
			h("h1", {}, title),
			group(
				null,
				h(
					"div",
					{ class: "beside" },
					preview.picture,
					h(
						"div",
						{},
						field.element,
						button("Take this seed", () => close(String(chosen)), { kind: "strong" }),
					),
				),
			),
			kept.length ? group("Faces you kept", h("ul", { class: "tiles" }, kept)) : null,
			group("A photograph", photograph.element),
			h(
				"div",
				{ class: "actions" },
				button("Cancel", () => dialog.close()),
			),
		);
		document.body.append(dialog);
		dialog.showModal();
		field.field.select();
		look();
	});
}

// Keep the face of a state under a name that a person gives. Resolves to its name, or null.
export function keepFace(app, values, proposal) {
	return new Promise((done) => {
		const value = proposal.replace(/[^\p{L}\p{N}_. -]+/gu, "-").slice(0, NAME_LETTERS); // as the server takes them
		const field = h("input", { type: "text", value, maxLength: NAME_LETTERS, required: true, id: "keep-name" });
		const problem = h("p", { class: "problem", role: "alert" });
		const keep = async (event) => {
			event.preventDefault();
			try {
				const { face } = await server.send("/api/faces", { state: present(values), name: field.value.trim() });
				await app.refreshFaces();
				app.say(`Kept as ${face}.`);
				dialog.close();
				done(face);
			} catch (error) {
				problem.textContent = error.message;
			}
		};
		const dialog = h(
			"dialog",
			{
				class: "dialog small",
				"aria-label": "Keep this face",
				onclose: () => {
					dialog.remove();
					done(null);
				},
			},
			h(
				"form",
				{ onsubmit: keep },
				h("h1", {}, "Keep this face"),
				h("p", { class: "hint" }, "Its styles are saved in this folder. You find it again wherever a face is chosen."),
				h("div", { class: "control" }, h("label", { htmlFor: "keep-name" }, "Name"), field),
				problem,
				h(
					"div",
					{ class: "actions" },
					h("button", { type: "submit", class: "button strong" }, "Keep"),
					button("Cancel", () => dialog.close()),
				),
			),
		);
		document.body.append(dialog);
		dialog.showModal();
		field.select();
	});
}

// A place to drop a photograph, or to choose one. `found(face)` once it is projected.
export function photographDrop(app, found) {
	const control = new AbortController();
	const input = h("input", {
		type: "file",
		accept: PHOTOGRAPHS,
		class: "spoken",
		onchange: () => input.files.length && start(input.files[0]),
	});
	const pick = h("label", { class: "button" }, input, h("span", {}, "Choose a photograph"));
	const square = app.network.width === app.network.height; // as faces are cut out
	const crop = tick({ label: "Find the face in it and cut it out", value: true, change: () => {} });
	const progress = h("div", {});
	const element = h(
		"div",
		{ class: "drop" },
		h("p", {}, "Drop a photograph of a face here, or choose one. It stays on this machine."),
		square && crop.element,
		pick,
		progress,
	);
	acceptDrops(element, (file) => start(file));

	async function start(file) {
		const card = jobCard(app, `Searching for the face in ${file.name}`);
		progress.replaceChildren(card.element);
		input.disabled = true;
		try {
			const { network } = app.address.values;
			const align = square && crop.checked() ? null : "no"; // the largest piece in its middle
			const address = `/api/photographs?${query({ network, name: file.name, align })}`;
			const answer = await server.request(address, {
				method: "POST",
				body: file,
				headers: { "Content-Type": "application/octet-stream" },
				signal: control.signal,
			});
			const { job } = await answer.json();
			const { result } = await card.follow(job, control.signal, true);
			await app.refreshFaces();
			card.end(`${file.name} is projected: it is a face now.`);
			app.say("The photograph is projected.");
			found(result.face);
		} catch (error) {
			if (!control.signal.aborted) card.fail(error.message);
		}
		input.disabled = false;
		input.value = "";
	}
	return { element, start, stop: () => control.abort() };
}

// Let files be dropped on an element: it shows where. Text and links fall through.
export function acceptDrops(element, take) {
	let depth = 0;
	const mark = (by) => {
		depth = Math.max(0, depth + by);
		element.classList.toggle("over", depth > 0);
	};
	const carries = (event) => [...event.dataTransfer.types].includes("Files");
	element.addEventListener("dragenter", (event) => {
		if (carries(event)) {
			event.preventDefault();
			mark(1);
		}
	});
	element.addEventListener("dragleave", (event) => {
		if (carries(event)) mark(-1);
	});
	element.addEventListener("dragover", (event) => {
		if (carries(event)) event.preventDefault();
	});
	const rest = () => {
		depth = 0;
		mark(0);
	};
	element.addEventListener("drop", rest, true); // also when a place within takes it
	element.addEventListener("drop", (event) => {
		if (!carries(event)) return;
		event.preventDefault();
		event.stopPropagation();
		depth = 0;
		mark(0);
		if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
	});
}

// Long work as it goes: what it does, a bar, its newest picture, and a way to stop it.
export function jobCard(app, title) {
	const bar = h("progress", { max: 1, "aria-label": title });
	const note = h("p", { class: "hint" });
	const heading = h("p", {}, title);
	const notes = h("div", {});
	const picture = h("img", { class: "thumb", alt: "The nearest face so far", hidden: true });
	const stop = button("Stop", null, { icon: "remove", disabled: true });
	const element = h(
		"div",
		{ class: "job" },
		heading,
		h("div", { class: "beside" }, picture, h("div", {}, bar, note)),
		notes,
		stop,
	);
	let pictures = 0;
	async function look(id) {
		try {
			const blob = await server.blob(`/api/jobs/${encodeURIComponent(id)}/picture`);
			if (picture.src.startsWith("blob:")) URL.revokeObjectURL(picture.src);
			picture.src = URL.createObjectURL(blob);
			picture.hidden = false;
		} catch {
			/* none yet */
		}
	}
	return {
		element,
		end: (sentence) => {
			bar.hidden = true;
			stop.hidden = true;
			heading.textContent = sentence;
			note.textContent = "";
		},
		fail: (sentence) => {
			element.classList.add("failed");
			bar.hidden = true;
			stop.hidden = true;
			note.textContent = sentence;
			note.setAttribute("role", "alert");
		},
		follow: (id, signal, live = false) => {
			stop.disabled = false;
			stop.onclick = () => server.request(`/api/jobs/${encodeURIComponent(id)}`, { method: "DELETE" }).catch(() => {});
			return follow(
				id,
				(job) => {
					if (job.total) [bar.max, bar.value] = [job.total, job.done];
					note.textContent = job.state === "waiting" ? "Waiting for its turn." : job.note;
					notes.replaceChildren(...job.notes.map((text) => h("p", { class: "hint" }, text)));
					if (live && job.pictures > pictures) {
						({ pictures } = job);
						look(id);
					}
					if (job.state === "done") stop.hidden = true;
				},
				signal,
			);
		},
	};
}
