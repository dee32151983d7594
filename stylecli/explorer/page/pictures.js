// The newest state wins: one picture is in flight, at most one waits for each place, and what came
// too late is never shown. Places with `first` go before all others.

const KEPT = 256; // pictures in memory, for "back" and for walks that repeat

export class Painter {
	// `load(address, signal, name)` fetches one picture for the place of that name: {blob}.
	constructor(load) {
		this.load = load;
		this.waiting = new Map(); // place -> address; in the order of asking
		this.kept = new Map(); // address -> what was loaded; oldest first
		this.flight = null;
		this.paused = false;
	}

	// A place where pictures appear. `show(loaded, newest)` and `fail(error)` are called in order.
	place({ name = "main", show, fail = () => {}, busy = () => {}, first = false }) {
		const place = { name, show, fail, busy, first, wanted: null };
		return {
			ask: (address) => this.ask(place, address),
			drop: () => this.drop(place),
			rest: () => this.rest(place),
		};
	}

	ask(place, address) {
		if (address === place.wanted) return;
		place.wanted = address;
		const known = this.kept.get(address);
		if (known) {
			this.waiting.delete(place);
			place.busy(false);
			place.show(known, true);
			return;
		}
		place.busy(true);
		if (this.flight?.place === place && this.flight.address === address) {
			this.waiting.delete(place);
			return;
		}
		this.waiting.set(place, address); // replaces what waited: the newest wins
		this.next();
	}

	// Forget a place: what is on its way to it is given up.
	drop(place) {
		this.waiting.delete(place);
		place.wanted = null;
		place.busy(false);
		if (this.flight?.place === place) this.flight.control.abort();
	}

	// Not needed now: what waits is not drawn; what is in flight is kept for later.
	rest(place) {
		this.waiting.delete(place);
		place.wanted = null;
		place.busy(false);
	}

	// While the server is away nothing is sent; afterwards everything that waits is.
	pause(paused) {
		this.paused = paused;
		if (!paused) this.next();
	}

	next() {
		if (this.flight || this.paused || !this.waiting.size) return;
		const all = [...this.waiting];
		const [place, address] = all.find(([each]) => each.first) ?? all[0];
		this.waiting.delete(place);
		this.fly(place, address);
	}

	async fly(place, address) {
		const flight = { place, address, control: new AbortController() };
		this.flight = flight;
		let loaded = null;
		let error = null;
		try {
			loaded = await this.load(address, flight.control.signal, place.name);
		} catch (problem) {
			error = problem;
		}
		this.flight = null;
		if (flight.control.signal.aborted) return this.next();
		if (loaded) this.keep(address, loaded);
		const newest = place.wanted === address;
		// A large picture follows the hand with every one that arrives, in order; small ones wait for theirs.
		if (loaded && (newest || (place.first && place.wanted !== null))) {
			place.show(loaded, newest);
		} else if ((error?.lost || error?.superseded) && newest) {
			this.waiting.set(place, address); // asked again, after a lost server when it is back
			if (error.superseded) setTimeout(() => this.next(), 100);
			return;
		} else if (error && newest) {
			place.wanted = null;
			place.fail(error);
		}
		if (newest) place.busy(false);
		this.next();
	}

	keep(address, loaded) {
		this.kept.delete(address);
		this.kept.set(address, loaded);
		if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value);
	}

	forget() {
		this.kept.clear();
	}
}
