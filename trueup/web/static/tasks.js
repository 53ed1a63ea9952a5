// The five kinds of question. Each is made from (view, draft, desk) and offers the same: nodes to be placed (scale,
// board, feet: one for each text, below), value() for draft and answer, missing() in words, choose(n, text) and
// act(action, text). desk = {map, changed(), say(words), select(index, focus), prefer(index)}.

import { LETTERS, cells, check, checkChips, group } from "./controls.js";
import { edit } from "./editing.js";
import { ranking } from "./ranking.js";
import { el } from "./text.js";

const THUMB_CHIPS = ["correct", "helpful", "clear", "wrong", "incomplete", "too long", "not what was asked"];
const MOST_CELLS = 11; // levels of a scale shown as cells; longer scales are typed
const STRENGTHS = { 1: "slightly better", 2: "better", 3: "much better" };

export function makeTask(view, draft, desk) {
  const made = { pair, ranking, rating, thumbs, edit }[view.kind](view, draft, desk);
  return {
    scale: null,
    board: null,
    below: null,
    feet: [],
    selects: true,
    choose: () => false,
    act: () => false,
    ...made,
  };
}

// Pairs

function pair(view, draft, { map, changed, say, prefer }) {
  let choice = draft.choice ?? null;
  const steps = (view.strength ? [-3, -2, -1, 0, 1, 2, 3] : [-1, 0, 1]).filter((step) => step !== 0 || view.ties);
  const options = steps.map((value, index) => ({
    value,
    words: pairShort(value, view), // what stands on it, so that it can also be spoken to
    short: pairShort(value, view),
    mark: value === 0 ? "=" : view.strength ? String(Math.abs(value)) : value < 0 ? "A" : "B",
    key: map.choiceShown(index),
  }));
  const bad = { value: "both bad", words: "both bad", short: "both bad", key: map.shown("both bad") };
  const set = (value, spoken = true) => {
    choice = value;
    check(node, value);
    said.textContent = value === null ? "" : pairWords(value, view);
    prefer(value < 0 ? 0 : value > 0 ? 1 : -1);
    if (spoken) {
      say(said.textContent);
      changed();
    }
  };
  const said = el("p", { class: "said-choice", "aria-hidden": "true" });
  const ends = el(
    "div",
    { class: "ends", "aria-hidden": "true" },
    el("span", {}, "A better"),
    el("span", {}, "B better"),
  );
  const both = view.both_bad ? cells("choice", [bad], choice, set, "apart") : null;
  const rows = el("div", { class: "rows" }, cells("choice", options, choice, set, "steps"), both, said);
  const node = el("fieldset", { class: "scale" }, el("legend", { class: "unseen" }, view.question), ends, rows);
  const step = (by) => {
    const at = steps.indexOf(choice);
    const middle = by < 0 ? steps.findLastIndex((value) => value < 0) : steps.findIndex((value) => value > 0);
    set(steps[at < 0 ? middle : Math.max(0, Math.min(steps.length - 1, at + by))]);
    return true;
  };
  set(choice, false);
  return {
    scale: node,
    value: () => (choice === null ? {} : { choice }),
    missing: () => (choice === null ? "Choose how the two compare." : ""),
    strong: () => Math.abs(choice) === 3,
    selects: false,
    choose: (index) => index < steps.length && (set(steps[index]), true),
    act(action) {
      if (action === "both bad" && view.both_bad) return (set("both bad"), true);
      return action === "previous" ? step(-1) : action === "next" ? step(1) : false;
    },
  };
}

function pairWords(value, view) {
  if (value === "both bad") return "Both are bad";
  if (value === 0) return "Equally good";
  return `${value < 0 ? "A" : "B"} is ${view.strength ? STRENGTHS[Math.abs(value)] : "better"}`;
}

function pairShort(value, view) {
  if (value === 0) return "equal";
  return `${value < 0 ? "A" : "B"} ${view.strength ? STRENGTHS[Math.abs(value)] : "better"}`;
}

// Ratings

function rating(view, draft, { map, changed, say }) {
  const scales = view.axes.flatMap((axis, a) =>
    view.completions.map((_, index) => makeScale(axis, a, index, draft.ratings?.[axis.name]?.[index] ?? null, changed)),
  );
  const of = (index) => scales.filter((scale) => scale.index === index);
  const open = (index) =>
    of(index).find((scale) => scale.value === null) ?? scales.find((scale) => scale.value === null);
  const inOrder = view.completions.flatMap((_, index) => of(index)); // as they stand in the page
  const openAfter = (scale) => {
    const here = inOrder.indexOf(scale) + 1;
    return [...inOrder.slice(here), ...inOrder.slice(0, here)].find(({ value }) => value === null);
  };
  const how = "By keys: a digit rates, and the focus moves on to what is not rated yet.";
  return {
    feet: view.completions.map((_, index) => el("div", { class: "scales" }, ...of(index).map(({ node }) => node))),
    below: map.choiceShown(0) ? el("p", { class: "muted" }, how) : null,
    value: () => ({
      ratings: Object.fromEntries(
        view.axes.map(({ name }) => [name, scales.filter((s) => s.axis === name).map((s) => s.value)]),
      ),
    }),
    missing() {
      const gaps = scales.filter(({ value }) => value === null);
      return gaps.length ? `${gaps.length} of ${scales.length} numbers are missing; next: ${gaps[0].title}.` : "";
    },
    strong: () => false,
    choose(number, index) {
      const scale = scales.find(({ node }) => node.contains(document.activeElement)) ?? open(index);
      if (!scale?.set(number + 1)) return false;
      const next = openAfter(scale);
      (next ?? scale).focus();
      say(`${scale.title}: ${number + 1}. ${next ? `Next: ${next.title}.` : "Nothing is missing."}`);
      return true;
    },
  };
}

function makeScale(axis, number, index, start, changed) {
  const title = `${axis.name} of ${LETTERS[index]}`;
  const name = `axis-${number}-${index}`;
  const anchors = Object.entries(axis.anchors ?? {}).sort(([a], [b]) => a - b);
  const scale = { axis: axis.name, index, title, value: start };
  const take = (value) => {
    scale.value = value;
    changed();
  };
  const typed = axis.high - axis.low >= MOST_CELLS;
  const control = typed
    ? numberInput(name, axis, title, start, take)
    : cells(name, levels(axis), start, take, "levels");
  const meaning = anchors.map(([level, words]) => el("span", {}, el("b", {}, level), ` ${words}`));
  const legend = el(
    "legend",
    {},
    el("span", { class: "axis" }, axis.name),
    el("span", { class: "unseen" }, ` of ${LETTERS[index]}. `),
    axis.question ? el("span", { class: "asked" }, ` ${axis.question}`) : null,
  );
  scale.node = el(
    "fieldset",
    { class: "axis-scale" },
    legend,
    control,
    anchors.length ? el("p", { class: "anchors" }, ...meaning) : null,
  );
  scale.set = (value) => {
    if (typed || value < axis.low || value > axis.high) return false;
    check(control, value);
    take(value);
    return true;
  };
  scale.focus = () => {
    (control.querySelector("input:checked") ?? control.querySelector("input")).focus({ preventScroll: true });
    scale.node.scrollIntoView({ block: "nearest" });
  };
  return scale;
}

function levels({ low, high, anchors = {} }) {
  return Array.from({ length: high - low + 1 }, (_, i) => low + i).map((value) => ({
    value,
    short: String(value),
    key: String(value),
    words: anchors[value] ? `${value}: ${anchors[value]}` : String(value),
  }));
}

function numberInput(name, { low, high }, title, start, take) {
  const input = el("input", {
    type: "number",
    name,
    min: low,
    max: high,
    step: 1,
    value: start ?? "",
    "aria-label": title,
  });
  input.addEventListener("input", () => take(input.value !== "" && input.checkValidity() ? Number(input.value) : null));
  return el("p", { class: "typed-level" }, input, el("span", { class: "muted" }, ` from ${low} to ${high}`));
}

// Thumbs

function thumbs(view, draft, { map, changed, say }) {
  const given = view.completions.map((_, index) => draft.thumbs?.[index] ?? null);
  const words = { up: "Good", down: "Bad", unsure: "Not sure" };
  const rows = given.map((start, index) => {
    const options = Object.entries(words).map(([value, short], i) => ({
      value,
      short,
      words: `${short}: ${LETTERS[index]}`,
      key: map.choiceShown(i),
    }));
    return cells(`thumb-${index}`, options, start, (value) => set(index, value), "thumbs");
  });
  const set = (index, value) => {
    given[index] = value;
    check(rows[index], value);
    say(`${LETTERS[index]}: ${words[value]}`);
    changed();
  };
  const chips = checkChips("Because it is", view.chips ?? THUMB_CHIPS, draft.chips ?? [], changed);
  return {
    feet: rows.map((row, index) => group(`What about ${LETTERS[index]}?`, true, row)),
    below: chips.node,
    value: () => ({ thumbs: [...given], ...(chips.value().length ? { chips: chips.value() } : {}) }),
    missing: () => (given.includes(null) ? `Say what you think of ${LETTERS[given.indexOf(null)]}.` : ""),
    strong: () => false,
    choose: (number, index) => number < 3 && (set(index, Object.keys(words)[number]), true),
  };
}
