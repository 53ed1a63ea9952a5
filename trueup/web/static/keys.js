// Which key does what. Every key can be changed, and all keys of a single character can be switched off (WCAG 2.1.4).

import { el } from "./text.js";

export const ACTIONS = [
  ["submit", "Enter", "Submit"],
  ["previous", "ArrowLeft", "Towards the first text, or the text before"],
  ["next", "ArrowRight", "Towards the second text, or the next text"],
  ["up", "ArrowUp", "One place up (ranking)"],
  ["down", "ArrowDown", "One place down (ranking)"],
  ["unplace", "Backspace", "Take it out of the ranking"],
  ["both bad", "b", "Both are bad (pairs)"],
  ["rewrite", "e", "Rewrite the chosen text (edit)"],
  ["undo", "u", "Undo: the last answer again"],
  ["postpone", "p", "Later: the others first"],
  ["skip", "s", "Skip, with a reason"],
  ["differences", "d", "Show the differences by word"],
  ["rendered", "t", "As formatted, or as typed"],
  ["reveal", "v", "Show what is covered"],
  ["helpers", "h", "Open or close what helpers say"],
  ["flag", "f", "Flag the prompt, then each text"],
  ["reason", "r", "Write the reason"],
  ["guideline", "g", "Open the guideline"],
  ["help", "?", "These keys"],
];
export const CHOICES = "123456789";

const NAMES = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Backspace: "⌫", " ": "Space" };
const WRITING = "input:not([type=radio]):not([type=checkbox]):not([type=button]), textarea, select, [contenteditable]";

export const keyName = (key) => NAMES[key] ?? key;
const single = (key) => [...key].length === 1;

export class Keymap {
  constructor({ keymap = {}, single_keys = true } = {}) {
    this.singles = single_keys;
    this.choices = [...(keymap.choices ?? "")].length === CHOICES.length ? keymap.choices : CHOICES;
    this.keys = Object.fromEntries(ACTIONS.map(([name, key]) => [name, keymap[name] ?? key]));
  }

  // The key to show on a control; nothing where it would not work.
  shown(action) {
    const key = this.keys[action];
    return single(key) && !this.singles ? "" : keyName(key);
  }

  // The same as a node, or null.
  cap(action) {
    return this.shown(action) ? el("kbd", { "aria-hidden": "true" }, this.shown(action)) : null;
  }

  choiceShown(index) {
    return this.singles ? ([...this.choices][index] ?? "") : "";
  }

  // {action} or {choice: 0..8}, or null: not while typing, composing (IME) or holding a modifier.
  read(event) {
    if (event.isComposing || event.keyCode === 229 || event.defaultPrevented) return null;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) return { action: "submit" };
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.(WRITING)) return null;
    const key = single(event.key) ? event.key.toLowerCase() : event.key;
    if (single(key) && !this.singles) return null;
    const action = ACTIONS.map(([name]) => name).find((name) => this.keys[name] === key);
    if (action) return { action };
    const choice = [...this.choices].indexOf(key);
    if (choice >= 0) return { choice };
    // Keyboards whose digits need Shift: the key's place counts.
    const digit = /^Digit([1-9])$/.exec(event.code ?? "");
    return digit && !event.shiftKey && this.choices === CHOICES ? { choice: Number(digit[1]) - 1 } : null;
  }
}

// The overlay: all keys, each to be changed; `save(settings)` stores them with the person.
export function keysForm(map, settings, save) {
  const rows = ACTIONS.map(([name, , words]) => keyRow(name, words, map.keys[name]));
  const choices = el("input", {
    id: "key-choices",
    value: map.choices,
    maxlength: CHOICES.length,
    spellcheck: "false",
  });
  const singles = el("input", { type: "checkbox", id: "single-keys", checked: map.singles });
  const theme = themeSelect(settings.theme);
  const wrong = el("p", { class: "error", role: "alert", hidden: true });
  const form = el(
    "form",
    { class: "keys" },
    el(
      "p",
      { class: "muted" },
      "Click into a field and press the key you want. In text fields only Ctrl + Enter submits.",
    ),
    el("dl", { class: "key-list" }, ...rows.flat()),
    field("The choices, from left to right; places of a ranking; numbers of a scale", choices),
    el("p", { class: "check" }, singles, el("label", { for: "single-keys" }, "Keys of a single character work")),
    field("Colours", theme),
    wrong,
    el(
      "p",
      { class: "actions" },
      button("Back to how it was at first", "reset"),
      el("button", { class: "primary" }, "Save"),
    ),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const keymap = { choices: choices.value.toLowerCase() };
    for (const input of form.querySelectorAll("[data-key]")) keymap[input.dataset.key] = input.dataset.value;
    const problem = clash(keymap);
    wrong.hidden = !problem;
    wrong.textContent = problem;
    if (!problem) save({ keymap, single_keys: singles.checked, theme: theme.value });
  });
  form.querySelector("[name=reset]").addEventListener("click", () => save({ keymap: {}, single_keys: true }));
  return form;
}

function keyRow(name, words, key) {
  const id = `key-${name.replace(" ", "-")}`;
  const input = el("input", { id, value: keyName(key), "data-key": name, "data-value": key, readonly: true });
  input.addEventListener("keydown", (event) => {
    if (["Tab", "Escape", "Shift", "Control", "Alt", "Meta"].includes(event.key) || event.isComposing) return;
    event.preventDefault();
    event.stopPropagation();
    input.dataset.value = single(event.key) ? event.key.toLowerCase() : event.key;
    input.value = keyName(input.dataset.value);
  });
  return [el("dt", {}, input), el("dd", {}, el("label", { for: id }, words))];
}

function clash(keymap) {
  const choices = [...keymap.choices];
  if (choices.length !== CHOICES.length) return `Give ${CHOICES.length} characters for the choices.`;
  const all = [...choices, ...ACTIONS.map(([name]) => keymap[name])];
  const twice = all.find((key, index) => all.indexOf(key) !== index);
  return twice === undefined ? "" : `The key ${keyName(twice)} would do two things.`;
}

function themeSelect(chosen = "auto") {
  const options = [
    ["auto", "as the device says"],
    ["light", "light"],
    ["dark", "dark"],
  ];
  const made = options.map(([value, words]) => el("option", { value, selected: value === chosen }, words));
  return el("select", { id: "theme" }, ...made);
}

const field = (words, control) => el("p", { class: "field" }, el("label", { for: control.id }, words), control);
const button = (words, name) => el("button", { type: "button", name }, words);
