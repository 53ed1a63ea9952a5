// What may be said beside the answer: flags, and why.

import { LETTERS, checkChips } from "./controls.js";
import { el } from "./text.js";

const NEEDS = {
  optional: "if you like",
  required: "needed",
  "when strong or flagged": "needed when much better, or when you flag something",
};

// Flags of the prompt (place 0) or of a text: {node, value()}.
export function flagBox(place, given, view, { map, changed }) {
  const whose = place === 0 ? "the prompt" : LETTERS[place - 1];
  const chosen = (place === 0 ? given?.prompt : given?.completions?.[place - 1]) ?? [];
  const title = el("summary");
  const chips = checkChips(`Flag ${whose} as`, view.flags, chosen, () => (update(), changed()), true);
  const update = () => {
    const words = chips.value().length ? `Flagged: ${chips.value().join(", ")}` : "Flag";
    title.replaceChildren(words, ...(place === 0 ? [" ", map.cap("flag")].filter(Boolean) : []));
    title.setAttribute("aria-label", `${words}, ${whose}`);
    node.classList.toggle("flagged", chips.value().length > 0);
  };
  const node = el("details", { class: "flags" }, title, chips.node);
  update();
  return { node, value: chips.value };
}

// The reason in words: {node, area}, or null where none is asked for.
export function reasonBox(text, view, { map, changed }) {
  if (view.rationale === "no") return null;
  const area = el("textarea", { id: "reason", rows: 2, dir: "auto" });
  area.value = text;
  area.addEventListener("input", changed);
  const need = el("span", { class: "muted" }, NEEDS[view.rationale], " ", map.cap("reason"));
  return {
    node: el("p", { class: "reason" }, el("label", { for: "reason" }, "Why? ", need), area),
    area,
  };
}
