// Nothing that somebody typed is lost: a copy in this browser at once, one on the server soon, and answers are sent
// until they arrive.

const LARGEST = 1_048_576; // bytes of a request that the server takes
const PATIENCE = 20_000; // milliseconds until an answer of the server counts as missing
const LONGEST_WAIT = 30; // seconds between tries
const DRAFT_PAUSE = 700; // milliseconds without a change before a draft is sent
const KEEP_DAYS = 30; // drafts of assignments that were never taken up again
const IDLE_AFTER = 60_000; // milliseconds without any key, click or scroll: the person has stopped reading
const PREFIX = "trueup";

export class Refused extends Error {
  constructor(status, { error, hint } = {}) {
    super(error ?? `the server answered with ${status}`);
    this.status = status;
    this.hint = hint ?? "";
  }

  // Worth trying again without anybody doing anything: the server is overloaded, starting or has made a mistake.
  get passing() {
    return this.status >= 500 || this.status === 429 || this.status === 408;
  }
}

// One request; JSON comes back.
export async function send(path, body, { method = "POST", keepalive = false } = {}) {
  const sent = method === "POST" ? JSON.stringify(body ?? {}) : undefined;
  const size = sent && sent.length > LARGEST / 3 ? new Blob([sent]).size : 0; // what is shorter cannot be too large
  if (size > LARGEST) throw tooLarge(size);
  const response = await fetch(path, {
    method,
    headers: { "Content-Type": "application/json", "X-Trueup": "1", Accept: "application/json" },
    body: sent,
    keepalive,
    signal: AbortSignal.timeout(PATIENCE),
  });
  const said = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, said);
  return said;
}

function tooLarge(size) {
  const bytes = (n) => n.toLocaleString("en");
  const error = `what you wrote is too large: ${bytes(size)} bytes, at most ${bytes(LARGEST)}`;
  return new Refused(413, { error, hint: "make it shorter; nothing was sent" });
}

// Tries until the server took it or refused it for good. `waiting(seconds)` is told before each pause.
export async function insist(path, body, waiting) {
  for (let attempt = 0; ; attempt++) {
    try {
      return await send(path, body);
    } catch (error) {
      if (error instanceof Refused && !error.passing) throw error;
      const seconds = Math.min(LONGEST_WAIT, 2 ** attempt) * (0.75 + Math.random() / 2);
      waiting(Math.ceil(seconds));
      await pause(seconds * 1000);
    }
  }
}

// Ends early when the network comes back.
function pause(milliseconds) {
  return new Promise((done) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      done();
    };
    const timer = setTimeout(end, milliseconds);
    addEventListener("online", end);
  });
}

// `crypto.randomUUID` is missing where a class reaches the server by plain HTTP.
export const newKey = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

// What this browser keeps of each assignment: {key, draft, at} and, once submitted, {answer} until the server has it.
export class Shelf {
  constructor(person) {
    this.prefix = `${PREFIX}/${person}/`;
    this.memory = new Map(); // where the browser lets nothing be stored
    this.lasting = true;
    this.sweep();
  }

  get(assignment) {
    try {
      return JSON.parse(localStorage.getItem(this.prefix + assignment)) ?? this.memory.get(assignment) ?? null;
    } catch {
      return this.memory.get(assignment) ?? null;
    }
  }

  put(assignment, record) {
    try {
      localStorage.setItem(this.prefix + assignment, JSON.stringify(record));
    } catch {
      this.lasting = false;
      this.memory.set(assignment, record);
    }
  }

  drop(assignment) {
    this.memory.delete(assignment);
    try {
      localStorage.removeItem(this.prefix + assignment);
    } catch {
      this.lasting = false;
    }
  }

  all() {
    let names = [];
    try {
      names = Object.keys(localStorage).filter((name) => name.startsWith(this.prefix));
    } catch {
      this.lasting = false;
    }
    return names.map((name) => name.slice(this.prefix.length)).map((id) => [id, this.get(id)]);
  }

  sweep() {
    const oldest = Date.now() - KEEP_DAYS * 24 * 3600 * 1000;
    for (const [id, record] of this.all()) if (!record || (!record.answer && record.at < oldest)) this.drop(id);
  }
}

// Drafts of the assignment on screen: to the shelf at once, to the server when the person pauses.
export class Drafts {
  constructor(shelf, told) {
    this.shelf = shelf;
    this.told = told; // told(true) once the server has the draft, told(false) while it has not
    this.sending = false;
    this.stop();
  }

  // The draft to begin with: whichever of browser and server is newer.
  begin(view) {
    this.stop();
    const kept = this.shelf.get(view.assignment);
    const mine = kept?.draft;
    this.key = kept?.key ?? newKey();
    return (mine && (!view.draft || mine.at > (view.draft.at ?? 0)) ? mine : view.draft) ?? {};
  }

  change(assignment, draft) {
    const dated = { ...draft, at: Date.now() };
    this.shelf.put(assignment, { key: this.key, draft: dated, at: dated.at });
    this.pending = { assignment, draft: dated };
    this.after(DRAFT_PAUSE);
  }

  after(milliseconds) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush(), milliseconds);
  }

  // At most one on its way: drafts that overtake one another would bring back what was undone.
  async flush(keepalive = false) {
    const sent = this.pending;
    if (!sent || this.sending) return;
    this.sending = true;
    try {
      await send(`/a/${sent.assignment}/draft`, { seq: sent.draft.at, draft: sent.draft }, { keepalive });
      this.settle(sent, true);
    } catch (error) {
      if (error instanceof Refused && !error.passing) this.settle(sent, false);
      else this.failed++;
      if (this.pending) this.told(false);
    }
    this.sending = false;
    if (this.pending) this.after(this.failed ? 1000 * Math.min(LONGEST_WAIT, 2 ** this.failed) : DRAFT_PAUSE);
  }

  settle(sent, stored) {
    this.failed = 0;
    if (this.pending !== sent) return;
    this.pending = null;
    this.told(stored);
  }

  stop() {
    clearTimeout(this.timer);
    this.pending = null;
    this.failed = 0;
  }
}

// Time with a text on screen, and the part of it in which somebody was there: visible, focused and not idle.
export class Clock {
  constructor() {
    this.reset();
    this.seen = performance.now();
    for (const sign of ["keydown", "pointerdown", "pointermove", "wheel", "touchmove", "scroll"])
      addEventListener(sign, () => this.alive(), { passive: true, capture: true });
    for (const change of ["visibilitychange", "focus", "blur"]) addEventListener(change, () => this.tick(), true);
    setInterval(() => this.tick(), 1000);
  }

  reset({ active_ms = 0, opened_ms = 0 } = {}) {
    this.active = active_ms;
    this.open = opened_ms;
    this.last = this.seen = performance.now();
    this.present = this.here();
  }

  here() {
    return document.visibilityState === "visible" && document.hasFocus();
  }

  // Milliseconds since anybody did anything.
  get quiet() {
    return performance.now() - this.seen;
  }

  alive() {
    this.tick();
    this.seen = performance.now();
  }

  // What passed since the last tick counts as active up to the moment at which the person went idle.
  tick() {
    const now = performance.now();
    this.open += now - this.last;
    if (this.present) this.active += Math.max(0, Math.min(now, this.seen + IDLE_AFTER) - this.last);
    this.last = now;
    this.present = this.here();
  }

  read() {
    this.tick();
    return { active_ms: Math.round(this.active), opened_ms: Math.round(this.open) };
  }
}
