// What helpers say, below the texts: marked as theirs, so that nobody takes it for part of a text or for the answer.

import { LETTERS } from "./controls.js";
import { el } from "./text.js";

const KINDS = { critique: "a critique", summary: "a summary", score: "its preference", note: "a note" };
const NOTE = "Helpers can be wrong. Judge by the texts.";

// desk = {map, changed()}; `nodesOf(text, html)` shows a text as the person wants it. Null where there is no help.
export function helpPanel(view, draft, { map, changed }) {
  if (!view.help.length) return null;
  const body = el("div", { class: "help-body" });
  const title = el("summary", {}, el("h2", {}, "What helpers say"), map.cap("helpers") ?? "");
  const node = el("details", { class: "help", open: draft.help_opened ?? view.help_open }, title, body);
  let opened = node.open; // once open, it was there to be read
  node.addEventListener("toggle", () => {
    if (!node.open || opened) return;
    opened = true;
    changed();
  });
  const fill = (nodesOf, cover) =>
    body.replaceChildren(
      ...(cover ? [cover] : [el("p", { class: "muted" }, NOTE), ...view.help.map((each, i) => output(view, i, nodesOf))]),
    );
  return { node, fill, opened: () => opened, toggle: () => (node.open = !node.open) };
}

function output(view, index, nodesOf) {
  const { helper, kind, text, places } = view.help[index];
  const html = view.rendered?.help[index];
  const heading = el("h3", {}, helper, el("span", { class: "muted" }, ` ${KINDS[kind]}`));
  const whole = text ? el("div", { class: "said" }, nodesOf(text, html?.text)) : null;
  const each = places.flatMap((said, place) =>
    said ? [el("dt", {}, LETTERS[place]), el("dd", { class: "said" }, nodesOf(said, html?.places[place]))] : [],
  );
  return el("section", { class: "helper" }, heading, whole, each.length ? el("dl", {}, ...each) : null);
}

// What was covered, as it came: of each output what it says of all, then of each text.
export function fillHelp(view, { texts, rendered }) {
  let at = 0;
  const next = () => [texts[at], rendered[at++]];
  view.help = view.help.map((output, index) => {
    const html = view.rendered.help[index];
    const [text, whole] = next();
    const places = output.places.map((_, place) => {
      const [said, shown] = next();
      html.places[place] = shown;
      return said;
    });
    html.text = whole;
    return { ...output, text, places };
  });
}
