// What the five kinds of question are built from.

import { el } from "./text.js";

export const LETTERS = "ABCDEFGHI"; // what the texts are called, in the order in which they are shown

// A row of radio buttons that look like keys: {value, words, short, key, mark}. `words` is what one is called, `short`
// what stands on it, `mark` what stands on it where there is no room, `key` the key that presses it.
export function cells(name, options, chosen, changed, kind = "") {
  return el(
    "div",
    { class: `cells ${kind}` },
    ...options.map((option) => cell(name, option, option.value === chosen, changed)),
  );
}

function cell(name, { value, words, short, key, mark }, checked, changed) {
  const input = el("input", { type: "radio", name, value, "aria-label": words, checked });
  input.addEventListener("change", () => changed(value));
  const shown = (kind, text) => (text ? el("span", { class: kind, "aria-hidden": "true" }, text) : null);
  const cap = key && key !== short ? el("kbd", { "aria-hidden": "true" }, key) : null;
  return el(
    "label",
    { class: mark ? "cell marked" : "cell", title: words },
    input,
    shown("mark", mark),
    cap,
    shown("short", short),
  );
}

export function check(row, value) {
  for (const input of row.querySelectorAll("input[type=radio]"))
    input.checked = value !== null && input.value === String(value);
}

export const group = (legend, hidden, ...children) =>
  el("fieldset", {}, el("legend", { class: hidden ? "unseen" : "" }, legend), ...children);

// Checkboxes as chips: {node, value()}.
export function checkChips(legend, options, chosen, changed, hidden = false) {
  const boxes = options.map((value) => el("input", { type: "checkbox", value, checked: chosen.includes(value) }));
  boxes.forEach((box) => box.addEventListener("change", changed));
  const labels = boxes.map((box) => el("label", { class: "chip-check" }, box, el("span", {}, box.value)));
  const node = group(legend, hidden, el("div", { class: "chips" }, ...labels));
  return { node, value: () => boxes.filter((box) => box.checked).map((box) => box.value) };
}
