// All talk with the server: the token, errors as one sentence, a server that is away and comes back.

const TOKEN = "stylecli-token";
const RETRY = 1500; // ms between attempts to reach a lost server
const tab = Math.floor(Math.random() * 0x7fffffff).toString(36);
const doors = new BroadcastChannel("stylecli-explore"); // between pages of this origin only

export class ServerError extends Error {
	constructor(sentence, status, more = {}) {
		super(sentence);
		Object.assign(this, { status, ...more });
	}
}

export const query = (values) => {
	const search = new URLSearchParams();
	for (const [name, value] of Object.entries(values)) {
		for (const each of Array.isArray(value) ? value : [value]) {
			if (each !== null && each !== undefined && each !== "") search.append(name, each);
		}
	}
	return search.toString().replaceAll("%2C", ",").replaceAll("%3A", ":");
};

// A state without what is left out: null and "" are no values.
export const present = (values) =>
	Object.fromEntries(
		Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== ""),
	);

class Server {
	constructor() {
		this.lost = false;
		this.told = () => {}; // (kind: "lost" | "back" | "locked") => void
		doors.onmessage = ({ data }) => {
			if (data === "who has the token?" && this.token) doors.postMessage({ token: this.token });
		};
	}

	get token() {
		return sessionStorage.getItem(TOKEN);
	}

	// Take the token from the address, from a page that is open, or from what a person pasted.
	async unlock(text = location.hash) {
		const [, given] = /(?:#|^|[?&])token=([^&\s]+)/.exec(text) ?? [];
		if (given) {
			sessionStorage.setItem(TOKEN, given);
			if (text === location.hash) history.replaceState(null, "", location.pathname);
		} else if (!this.token) {
			await this.askAround();
		}
		return Boolean(this.token);
	}

	askAround() {
		return new Promise((done) => {
			const listen = ({ data }) => {
				if (data?.token) sessionStorage.setItem(TOKEN, data.token);
				if (data?.token) finish();
			};
			const finish = () => {
				doors.removeEventListener("message", listen);
				clearTimeout(timer);
				done();
			};
			const timer = setTimeout(finish, 400);
			doors.addEventListener("message", listen);
			doors.postMessage("who has the token?");
		});
	}

	async request(path, { signal, method = "GET", body, headers = {}, place } = {}) {
		let answer;
		try {
			answer = await fetch(path, {
				method,
				body,
				signal,
				redirect: "error",
				referrerPolicy: "no-referrer",
				headers: {
					"X-Stylecli-Token": this.token ?? "",
					...(place ? { "X-Stylecli-Place": `${tab}:${place}` } : {}),
					...headers,
				},
			});
		} catch (problem) {
			if (signal?.aborted) throw problem;
			this.lose();
			throw new ServerError("The server does not answer.", 0, { lost: true });
		}
		if (answer.ok || answer.status === 304) return answer;
		const told = await answer.json().catch(() => ({}));
		if (answer.status === 401) this.told("locked");
		throw new ServerError(told.error ?? `The server answered ${answer.status}.`, answer.status, {
			superseded: told.superseded ?? false,
		});
	}

	async json(path, values = {}, options = {}) {
		const search = query(values);
		return (await this.request(search ? `${path}?${search}` : path, options)).json();
	}

	async send(path, document, method = "POST") {
		return (
			await this.request(path, {
				method,
				body: JSON.stringify(document),
				headers: { "Content-Type": "application/json" },
			})
		).json();
	}

	async blob(path, options) {
		return (await this.request(path, options)).blob();
	}

	lose() {
		if (this.lost) return;
		this.lost = true;
		this.told("lost");
		this.knock();
	}

	// Try until the server answers, whatever it says: then it is back.
	async knock() {
		await new Promise((done) => setTimeout(done, RETRY));
		try {
			const answer = await fetch("/api/networks", { headers: { "X-Stylecli-Token": this.token ?? "" } });
			this.lost = false;
			this.told(answer.status === 401 ? "locked" : "back");
		} catch {
			this.knock();
		}
	}
}

export const server = new Server();

// Follow a job until it ends: `seen(job)` at every change. Returns the job; throws what it failed with.
export async function follow(id, seen, signal) {
	for (;;) {
		let job = null;
		try {
			job = await server.json(`/api/jobs/${encodeURIComponent(id)}`, {}, { signal });
		} catch (problem) {
			if (!problem.lost) throw problem; // while the server is away the job is not lost
		}
		if (job) {
			seen(job);
			if (job.state === "done") return job;
			if (job.state === "failed") throw new ServerError(job.error ?? "It failed.", 500);
			if (job.state === "cancelled") throw new ServerError("Cancelled.", 0, { cancelled: true });
		}
		await new Promise((done) => setTimeout(done, 400));
		signal?.throwIfAborted();
	}
}
