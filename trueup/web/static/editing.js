// Rewriting a text into what it should have been; and, where there are several, in which order the originals stand.

import { LETTERS, check, group } from "./controls.js";
import { dense, placeCells, put } from "./ranking.js";
import { changes, el, markedNodes, tidy } from "./text.js";

const LONGEST_TEXT = 200_000; // characters that the server takes
const COMPARE_AFTER = 150; // milliseconds without a change before differences are drawn again

export function edit(view, draft, { map, changed, say, select }) {
  const many = view.completions.length > 1;
  const order = many ? orderOf(view, draft.ranks, { map, changed, say }) : null;
  const version = versionOf(view, draft, changed);
  const rewrite = (index) => {
    version.open(index);
    buttons.forEach((each, i) => each.setAttribute("aria-pressed", String(i === index)));
    select(index, false);
    changed();
    version.area.focus();
    return true;
  };
  const buttons = many ? view.completions.map((_, index) => rewriteButton(index, map, rewrite)) : [];
  buttons[version.edited()]?.setAttribute("aria-pressed", "true");
  return {
    feet: buttons.map((button, index) => el("div", { class: "edit-foot" }, button, order.feet[index])),
    below: el("div", { class: "rewrite" }, order?.node ?? "", ...version.nodes),
    value: (final) => ({ ...version.value(), ...order?.value(final) }),
    missing: () => version.missing() || (order?.missing() ?? ""),
    strong: () => false,
    choose: (number, index) => many && number < view.completions.length && order.move(index, number + 1),
    act(action, index) {
      if (action === "rewrite") return rewrite(many ? index : 0);
      if (!many) return false;
      if (action === "unplace") return order.move(index, null);
      return action === "up" ? order.step(index, -1) : action === "down" ? order.step(index, 1) : false;
    },
  };
}

function rewriteButton(index, map, rewrite) {
  const words = `Rewrite ${LETTERS[index]} `;
  const made = el("button", { type: "button", "aria-pressed": "false" }, words, map.cap("rewrite") ?? "");
  made.addEventListener("click", () => rewrite(index));
  return made;
}

// The text as this person would have it, and what they changed.
function versionOf(view, draft, changed) {
  const originals = view.completions.map(tidy);
  const texts = [...originals]; // what was typed for each is kept while another one is open
  let edited = draft.edited ?? 0;
  if (typeof draft.text === "string") texts[edited] = draft.text;
  const area = el("textarea", { id: "rewritten", rows: 8, dir: "auto", spellcheck: "true" });
  const shown = el("div", { class: "changes", "aria-label": "What you changed", role: "group" });
  const count = el("p", { class: "muted", id: "change-count" });
  const label = el("label", { for: "rewritten" });
  let timer = 0;
  const compare = () => {
    showChanges(originals[edited], texts[edited], shown, count);
    if (tooLong(texts[edited])) count.textContent = tooLong(texts[edited]);
  };
  const open = (index) => {
    edited = index;
    area.value = texts[index];
    label.textContent = `Your version of ${LETTERS[index]}`;
    compare();
  };
  area.addEventListener("input", () => {
    texts[edited] = area.value;
    clearTimeout(timer);
    timer = setTimeout(compare, COMPARE_AFTER);
    changed();
  });
  open(edited);
  const same = () => texts[edited].trim() === originals[edited].trim();
  return {
    area,
    open,
    nodes: [label, area, count, shown],
    edited: () => edited,
    value: () => (texts[edited] === originals[edited] ? { edited } : { edited, text: texts[edited] }),
    missing() {
      if (texts[edited].trim() === "") return "Write a text.";
      if (tooLong(texts[edited])) return tooLong(texts[edited]);
      return same() ? "You have not changed anything yet: change the text, or skip it." : "";
    },
  };
}

// Counted as the server does: by characters, of which a browser counts some twice.
function tooLong(text) {
  const length = text.length > LONGEST_TEXT ? [...text].length : 0;
  const words = (n) => n.toLocaleString("en");
  return length > LONGEST_TEXT
    ? `Your version is too long: ${words(length)} characters, at most ${words(LONGEST_TEXT)}.`
    : "";
}

function showChanges(before, after, shown, count) {
  const { runs, out, added, whole } = changes(before, after);
  const same = before.trim() === after.trim();
  const distance = `Edit distance ${out + added}: ${out} words out, ${added} in.`;
  count.textContent = same ? "Nothing is changed yet." : whole ? distance : "Hardly anything of the old text is left.";
  shown.replaceChildren(...(same ? [] : [markedNodes(runs)]));
}

// Which of the originals is better, if somebody wants to say. What was rewritten always stands above all of them.
function orderOf(view, given, { map, changed, say }) {
  const k = view.completions.length;
  let places = Array.from({ length: k }, (_, i) => given?.[i] ?? null);
  const rows = places.map((_, index) => placeCells(index, k, map, (place) => move(index, place)));
  const words = el("p", { id: "order" });
  const forget = el("button", { type: "button", class: "plain" }, "No order");
  const open = () => places.flatMap((place, index) => (place === null ? [LETTERS[index]] : []));
  const draw = () => {
    rows.forEach((row, index) => check(row, places[index]));
    words.textContent = inWords(places);
    forget.setAttribute("aria-disabled", String(open().length === k));
  };
  const become = (after) => {
    places = after;
    draw();
    say(words.textContent);
    changed();
    return true;
  };
  const move = (index, place) => become(put(places, index, place, true));
  forget.addEventListener("click", () => become(places.map(() => null)));
  draw();
  return {
    feet: rows.map((row, index) => group(`Place of ${LETTERS[index]}, if you like`, false, row)),
    node: el("div", { class: "order" }, words, forget),
    move,
    step: (index, by) => move(index, Math.max(1, Math.min(k, (places[index] ?? (by < 0 ? 2 : 0)) + by))),
    value(final) {
      if (open().length === k) return {};
      return { ranks: final ? dense(places) : places };
    },
    missing: () => (open().length % k ? `Give every original a place or none; not placed: ${open().join(", ")}.` : ""),
  };
}

function inWords(places) {
  if (places.every((place) => place === null)) return "Your version will stand above the text it was made from.";
  const open = places.flatMap((place, index) => (place === null ? [LETTERS[index]] : []));
  if (open.length) return `Not placed yet: ${open.join(", ")}.`;
  const ranks = dense(places);
  const level = (rank) => ranks.flatMap((each, index) => (each === rank ? [LETTERS[index]] : [])).join(" and ");
  const levels = [...new Set(ranks)].sort((a, b) => a - b).map(level);
  return `Best first: your version, then ${levels.join(", then ")}.`;
}
