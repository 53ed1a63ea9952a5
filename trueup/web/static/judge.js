// The judging page: shows a view, takes an answer, asks for the next. The server decides everything else.

import { LETTERS } from "./controls.js";
import { fillHelp, helpPanel } from "./help.js";
import { Keymap, keysForm } from "./keys.js";
import { nameIn, reading } from "./reading.js";
import { flagBox, reasonBox } from "./remarks.js";
import { Clock, Drafts, Refused, Shelf, insist, send } from "./saving.js";
import { askWhy, closeSheet, openGuideline, openSheet, sheetIsOpen } from "./sheets.js";
import { makeTask } from "./tasks.js";
import { el } from "./text.js";

const CLIENT = "judge.js 1"; // goes with each answer, so that one can tell later which page it came from
const HEARTBEAT = 120_000; // milliseconds between renewals of the lease while somebody is there

// By the server's word for it: why there is nothing to judge.
const WHY = {
  "": "You have done everything there is for you. New items may come later.",
  closed: "This collection is closed. Thank you for your work.",
  "daily limit": "You have reached the most that one person may judge in a day. You can go on after midnight UTC.",
  categories: "What is left is about what you chose not to be given. You can change that on your account page.",
  qualification: "You did not pass the qualification. Those who lead this collection can give you another try.",
};

const ELSEWHERE =
  "You answered that one in another tab, and that answer stands. What you said here is kept: to use it, change that judgement under My work.";
const NO_SKIP = "This one has to be judged before the work begins: put it aside for later, or answer it.";

const at = (id) => document.getElementById(id);
const form = at("judging");
const here = form.dataset.collection;

let settings = JSON.parse(at("settings").textContent);
let map = new Keymap(settings);
let view = null;
let task = null;
let reader = null;
let flags = [];
let help = null;
let reason = null;
let selected = 0;
let busy = false;

const shelf = new Shelf(form.dataset.person);
const clock = new Clock();
const drafts = new Drafts(shelf, (stored) => {
  if (stored) tell("Draft saved");
  else tell("Draft not saved on the server yet; this browser keeps it", "late");
});

// What people are told

function tell(words, kind = "") {
  at("state").textContent = words;
  at("state").className = `state ${kind}`;
  if (kind) say(words);
}

function say(words) {
  at("spoken").textContent = words;
}

function note(words) {
  at("notice").textContent = words;
  at("notice").hidden = !words;
}

function refuse(error) {
  const words =
    error instanceof Refused ? [error.message, error.hint].filter(Boolean).join(": ") : "The server cannot be reached";
  tell(`${words[0].toUpperCase()}${words.slice(1)}.`, "error");
}

// Showing

function show(next, why = "") {
  if (next && !next.guideline.seen) return location.assign(`/c/${here}`); // it changed: the server has it read first
  drafts.stop();
  view = next;
  form.hidden = !view;
  at("nothing").hidden = Boolean(view);
  at("why").textContent = WHY[why];
  labelKeys();
  if (!view) return at("nothing").querySelector("h1").focus();
  view.shown = []; // parts that were covered and came when they were asked for
  const draft = drafts.begin(view);
  clock.reset(draft);
  build(draft);
  const asked = (draft.uncovered ?? []).filter((part) => view.covered[part]);
  if (asked.length) reveal(asked);
  scrollTo(0, 0);
  at("question").focus({ preventScroll: true });
  renew();
}

function build(draft) {
  at("progress").textContent = `${view.mine.done} done, about ${view.mine.left} left`;
  at("question").textContent = view.question;
  at("criteria").replaceChildren(...view.criteria.map((each) => el("li", {}, each)));
  prefer(-1);
  form.className = `task-${view.kind} of-${view.completions.length}`;
  flags = [view.prompt, ...view.completions].map((_, i) => flagBox(i, draft.flags, view, { map, changed }));
  task = makeTask(view, draft, { map, changed, say, select, prefer });
  reason = reasonBox(draft.rationale ?? "", view, { map, changed });
  help = helpPanel(view, draft, { map, changed });
  reader = reading(view, { map, formatted, flags, feet: task.feet, help, select, act, tell, say, uncover });
  for (const [id, node] of [
    ["board", task.board],
    ["scale", task.scale],
    ["help", help?.node],
  ])
    at(id).replaceChildren(...(node ? [node] : []));
  at("below").replaceChildren(...[task.below, reason?.node].filter(Boolean));
  document.querySelector("[data-action=skip]").hidden = !view.skippable;
  select(0, false);
  tell(shelf.lasting ? "" : "This browser keeps no drafts: leave the page open until your answer is saved", "");
  if (reader.covered()) tell(reader.covered(), "calm");
}

// What is covered is not in the page: it comes from the server. Parts: the prompt (0), then the texts as they stand.
async function reveal(parts) {
  const asking = view;
  const ask = (part) => send(`/a/${asking.assignment}/covered?part=${part}`, null, { method: "GET" });
  let found;
  try {
    found = await Promise.all(parts.map(ask));
  } catch (error) {
    refuse(error);
    return false;
  }
  if (view !== asking) return false; // they went on meanwhile
  parts.forEach((part, i) => fillIn(part, found[i]));
  view.shown.push(...parts);
  build(answer(false));
  return true;
}

function fillIn(part, { texts, rendered }) {
  if (part > view.completions.length) {
    fillHelp(view, { texts, rendered });
  } else if (part > 0) {
    view.completions[part - 1] = texts[0];
    view.rendered.completions[part - 1] = rendered[0];
  } else {
    view.prompt = view.prompt.map((message, i) => ({ ...message, content: texts[i] }));
    view.rendered.prompt = rendered;
  }
}

async function uncover(parts) {
  if (busy || !(await reveal(parts))) return;
  changed();
  (parts[0] === 0 ? at("prompt") : (reader.cards[parts[0] - 1] ?? help.node.querySelector("summary"))).focus();
  tell(reader.covered(), "calm");
  say(`Shown: ${parts.map(nameIn(view)).join(", ")}`);
}

const formatted = () => Boolean(view.rendered) && settings.rendered !== false;

function labelKeys() {
  for (const button of document.querySelectorAll("[data-action]")) {
    button.querySelector("kbd")?.remove();
    const cap = map.cap(button.dataset.action);
    if (cap) button.append(" ", cap);
  }
  at("open-keys").querySelector("kbd").hidden = !map.shown("help");
}

// Flags and the reason

function nextFlag() {
  const open = flags.findIndex(({ node }) => node.open && node.contains(document.activeElement));
  const following = flags[(open + 1) % flags.length].node;
  if (open >= 0) flags[open].node.open = false;
  following.open = true;
  following.querySelector("input").focus();
}

const flagged = () => flags.some(({ value }) => value().length > 0);

function reasonMissing() {
  const needed =
    view.rationale === "required" || (view.rationale === "when strong or flagged" && (task.strong() || flagged()));
  return needed && !reason.area.value.trim() ? "Say why, in a few words." : "";
}

// The answer

function answer(final) {
  const said = { ...task.value(final), ...clock.read() };
  if (flagged()) said.flags = { prompt: flags[0].value(), completions: flags.slice(1).map(({ value }) => value()) };
  if (reason?.area.value.trim()) said.rationale = reason.area.value.trim();
  if (help) said.help_opened = help.opened();
  return final ? { ...said, client: CLIENT } : { ...said, uncovered: view.shown };
}

function changed() {
  if (view) drafts.change(view.assignment, answer(false));
}

function submit() {
  if (busy || !view) return;
  const first = reader.missing() || task.missing();
  const missing = first || reasonMissing();
  if (missing) {
    if (!first) reason.area.focus();
    return tell(missing, "error");
  }
  const doubt = task.confirm?.();
  if (doubt) return tell(doubt, "error");
  const { key } = drafts;
  const { assignment, revises } = view;
  const now = Date.now();
  shelf.put(assignment, { key, revises, draft: { ...answer(false), at: now }, at: now, answer: answer(true) });
  deliver(assignment, shelf.get(assignment));
}

// Until the server has it. The same key however often it is sent: stored once.
async function deliver(assignment, { key, revises, answer: said }) {
  drafts.stop();
  work(true, "Saving …");
  let stored = null;
  try {
    stored = await insist(`/a/${assignment}/answer`, { key, revises, answer: said }, waiting);
  } catch (error) {
    shelf.put(assignment, { ...shelf.get(assignment), answer: undefined });
    refuse(error);
  }
  work(false);
  if (!stored) return;
  shelf.drop(assignment);
  note(stored.receipt.gold_feedback);
  show(stored.next, stored.waiting);
  saved(stored.receipt);
}

function waiting(seconds) {
  const kept = shelf.lasting ? "This browser keeps your answer" : "Leave this page open";
  tell(`Not saved yet: the server cannot be reached. ${kept}; next try in ${seconds} s.`, "late");
}

function saved(receipt) {
  const words = arrived(receipt.elsewhere ? ELSEWHERE : `Saved. ${receipt.done_today} today.`);
  say([words, receipt.gold_feedback, view ? "" : at("why").textContent].join(" "));
  if (!view) at("progress").textContent = `${receipt.done_today} done today`;
}

// What became of the last item, and what has to be known of this one.
function arrived(words) {
  const both = [words, view ? reader.covered() : ""].filter(Boolean).join(" ");
  tell(both);
  return both;
}

function work(on, words = "") {
  busy = on;
  form.setAttribute("aria-busy", String(on));
  form.querySelector("[type=submit]").setAttribute("aria-disabled", String(on));
  if (on) tell(words);
}

// An answer that was on its way when the page was closed goes first. True when it is the one on screen.
async function deliverOlder(current) {
  for (const [id, record] of shelf.all()) {
    if (!record?.answer || id === current) continue;
    try {
      await send(`/a/${id}/answer`, { key: record.key, revises: record.revises, answer: record.answer });
      shelf.drop(id);
    } catch (error) {
      refuse(error);
      if (error instanceof Refused && !error.passing) shelf.put(id, { ...record, answer: undefined });
    }
  }
}

// Moving on and back

async function move(path, body, take) {
  if (busy) return;
  work(true, "One moment …");
  try {
    take(await send(path, body));
  } catch (error) {
    refuse(error);
  } finally {
    busy = false;
    work(false);
  }
}

function undo() {
  move(`/c/${here}/undo`, {}, ({ view: earlier }) => {
    if (!earlier) return tell("There is nothing to undo.", "error");
    note("");
    show(earlier);
    tell("Your earlier answer: change it and submit again.", "calm");
  });
}

function leave(path, body, words, left = () => {}) {
  move(path, body, ({ next, waiting: why }) => {
    left();
    note("");
    show(next, why);
    say(arrived(words));
  });
}

// What was typed waits with it.
function postpone() {
  drafts.flush();
  leave(`/a/${view.assignment}/postpone`, {}, "It comes again after the others.");
}

function skip(reason) {
  const { assignment } = view;
  leave(`/a/${assignment}/skip`, { reason }, "Skipped.", () => shelf.drop(assignment));
}

// A failure needs no words: an answer that comes after the lease is kept as well.
function renew() {
  if (view && !busy && clock.quiet < HEARTBEAT) send(`/a/${view.assignment}/renew`).catch(() => {});
}

// Sheets

const showGuideline = () => openGuideline(here, view?.guideline.number ?? "").catch(refuse);
const openKeys = () => openSheet("Keys", keysForm(map, settings, saveSettings));

async function saveSettings(chosen) {
  try {
    ({ settings } = await send("/settings", chosen));
  } catch (error) {
    return refuse(error);
  }
  map = new Keymap(settings);
  if (settings.theme && settings.theme !== "auto") document.documentElement.dataset.theme = settings.theme;
  else delete document.documentElement.dataset.theme;
  closeSheet();
  labelKeys();
  if (view) build(shelf.get(view.assignment)?.draft ?? view.draft ?? {});
  say("Saved");
}

// Keys and buttons

function select(index, focus = true) {
  const { cards } = reader;
  selected = Math.max(0, Math.min(cards.length - 1, index));
  cards.forEach((each, i) => each.classList.toggle("selected", i === selected && cards.length > 1 && task.selects));
  if (focus) cards[selected].focus();
}

// The text that is preferred so far; -1: none.
function prefer(index) {
  form.dataset.preferred = LETTERS[index] ?? "";
}

function switchRendered() {
  if (!view.rendered) return;
  settings = { ...settings, rendered: !formatted() };
  send("/settings", { rendered: settings.rendered }).catch(refuse);
  reader.redraw();
}

const DEEDS = {
  submit,
  undo,
  postpone,
  skip: () => (view.skippable ? askWhy(skip) : tell(NO_SKIP, "error")),
  differences: () => reader.compareWith(selected),
  rendered: switchRendered,
  flag: nextFlag,
  reason: () => reason?.area.focus(),
  reveal: () => reader.uncover(),
  helpers: () => help?.toggle(),
  guideline: showGuideline,
  help: openKeys,
  previous: () => reader.cards.length > 1 && select(selected - 1),
  next: () => reader.cards.length > 1 && select(selected + 1),
};
const ANYWHERE = new Set(["undo", "help", "guideline"]);

function act(action) {
  if (busy || (!view && !ANYWHERE.has(action))) return false;
  DEEDS[action]?.();
  return action in DEEDS;
}

function pressed(event) {
  if (sheetIsOpen()) return;
  const read = map.read(event);
  if (!read) return;
  const on = event.target;
  const arrow = event.key.startsWith("Arrow");
  if (read.action === "submit" && event.repeat) return event.preventDefault();
  if (
    read.action === "submit" &&
    event.key === "Enter" &&
    !event.ctrlKey &&
    !event.metaKey &&
    on.closest("button, a, summary")
  )
    return;
  if (arrow && on.matches("input[type=radio]") && on.name !== "choice") return; // the browser's own: within the group
  if (view && !busy && (read.action ? task.act(read.action, selected) : task.choose(read.choice, selected)))
    event.preventDefault();
  else if (read.action && act(read.action)) event.preventDefault();
}

async function lookAgain() {
  try {
    const found = await send(`/c/${here}/next`, null, { method: "GET" });
    show("assignment" in found ? found : null, found.waiting);
    if (!view) tell("Still nothing.", "calm");
  } catch (error) {
    refuse(error);
  }
}

function listen() {
  addEventListener("keydown", pressed);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  for (const button of document.querySelectorAll("button[type=button][data-action]"))
    button.addEventListener("click", () => act(button.dataset.action));
  at("open-guideline").addEventListener("click", showGuideline);
  at("open-keys").addEventListener("click", openKeys);
  at("look-again").addEventListener("click", lookAgain);
  addEventListener("online", () => drafts.flush());
  document.addEventListener("visibilitychange", () => (document.hidden ? drafts.flush(true) : renew()));
  setInterval(renew, HEARTBEAT);
}

async function start() {
  listen();
  const first = JSON.parse(at("view").textContent);
  await deliverOlder(first?.assignment);
  show(first, at("nothing").dataset.waiting);
  const waiting = first && shelf.get(first.assignment);
  if (waiting?.answer) deliver(first.assignment, waiting);
}

start();
