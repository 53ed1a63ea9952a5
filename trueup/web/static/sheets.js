// What opens over the page: why something is skipped, the guideline, the keys.

import { el, safeNodes } from "./text.js";

const REASONS = ["I cannot judge this", "Broken or unreadable", "Not in my language", "Too unpleasant for me"];
const sheet = document.getElementById("sheet");

export const sheetIsOpen = () => sheet.open;
export const closeSheet = () => sheet.close();

export function openSheet(title, ...content) {
  const close = el(
    "button",
    { type: "button", class: "plain", "aria-label": "Close" },
    "Close ",
    el("kbd", { "aria-hidden": "true" }, "Esc"),
  );
  close.addEventListener("click", closeSheet);
  sheet.replaceChildren(
    el("header", {}, el("h2", { id: "sheet-title" }, title), close),
    el("div", { class: "sheet-body" }, ...content),
  );
  sheet.showModal();
}

// Asks for the reason of a skip; `skip(reason)` once there is one.
export function askWhy(skip) {
  const rows = REASONS.map((words, i) =>
    el(
      "label",
      { class: "option" },
      el("input", { type: "radio", name: "why", value: words, checked: i === 0 }),
      el("span", {}, words),
    ),
  );
  const other = el("input", { id: "other-reason", maxlength: "300" });
  const ask = el(
    "form",
    {},
    el("fieldset", { class: "options" }, el("legend", {}, "Why?"), ...rows),
    el("p", { class: "field" }, el("label", { for: "other-reason" }, "Or in your words"), other),
    el("p", { class: "actions" }, el("button", { class: "primary" }, "Skip this one")),
  );
  ask.addEventListener("submit", (event) => {
    event.preventDefault();
    closeSheet();
    skip(other.value.trim() || new FormData(ask).get("why"));
  });
  openSheet("Skip", ask);
  rows[0].querySelector("input").focus();
}

// The guideline in force, from its own page.
export async function openGuideline(collection, number) {
  const answer = await fetch(`/c/${collection}/guideline`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const text = page.querySelector("[aria-label=Guideline]");
  openSheet(`Guideline, version ${number}`, el("div", { class: "said", tabindex: "0" }, safeNodes(text.innerHTML)));
}
