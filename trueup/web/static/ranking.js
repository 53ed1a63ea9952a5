// Ranking with ties: K places, any number of texts in each. A digit, the buttons or a drag put a text into a place.

import { LETTERS, cells, check, group } from "./controls.js";
import { el } from "./text.js";

const DRAG_FROM = 6; // pixels: less is a click
const EXCERPT = 60; // characters of a text on its chip

// Where everything stands after text `index` was put into `place` (1..K, or null for not placed). Without ties whoever
// was there takes the place that became free, or moves down.
export function put(places, index, place, ties) {
  const after = [...places];
  after[index] = place;
  const there = ties || place === null ? -1 : places.findIndex((other, i) => i !== index && other === place);
  if (there < 0) return after;
  if (places[index] !== null) after[there] = places[index];
  else pushDown(after, there, index);
  return after;
}

// Those without a gap below them go back to the tray.
function pushDown(after, moved, fixed) {
  for (let place = after[moved] + 1; moved >= 0; place++) {
    const next = after.findIndex((other, i) => i !== moved && i !== fixed && other === place);
    after[moved] = place <= after.length ? place : null;
    moved = next;
  }
}

// Places without gaps: 1, 3, 3 is 1, 2, 2.
export function dense(places) {
  const used = [...new Set(places)].sort((a, b) => a - b);
  return places.map((place) => used.indexOf(place) + 1);
}

export function ranking(view, draft, { map, changed, say, select }) {
  const k = view.completions.length;
  let places = Array.from({ length: k }, (_, i) => draft.ranks?.[i] ?? null);
  let confirmed = false;
  const feet = places.map((_, index) => placeCells(index, k, map, (place) => move(index, place)));
  const slots = [null, ...Array.from({ length: k }, (_, i) => i + 1)].map(makeSlot);
  const chips = places.map((_, index) => makeChip(index, view.completions[index], (by) => step(index, by)));
  const hint = view.ties ? "Texts in the same place are tied." : "One text a place.";
  const board = el(
    "section",
    { class: "ranking", "aria-label": "Your ranking" },
    el("h2", {}, "Your ranking"),
    el("p", { class: "muted" }, hint),
    el("ol", { class: "slots" }, ...slots.slice(1)),
    slots[0],
  );

  const draw = () => {
    const focused = document.activeElement;
    chips.forEach((chip, index) => {
      const slot = slots[places[index] ?? 0].querySelector(".chips");
      if (chip.parentNode !== slot) slot.append(chip);
      describe(chip, index, places);
      check(feet[index], places[index]);
    });
    slots[0].hidden = places.every((place) => place !== null);
    if (board.contains(focused)) focused.focus({ preventScroll: true }); // a node that was moved has lost it
  };
  const move = (index, place) => {
    places = put(places, index, place, view.ties);
    confirmed = false;
    draw();
    say(whereIs(index, places));
    changed();
  };
  const step = (index, by) => {
    const from = places[index];
    const to = from === null ? firstFree(places) : Math.max(1, Math.min(k, from + by));
    if (to !== from) move(index, to);
    return true;
  };
  chips.forEach((chip, index) => {
    chip.addEventListener("focusin", () => select(index, false));
    dragged(chip, slots, (slot) => move(index, slot === slots[0] ? null : slots.indexOf(slot)));
  });
  draw();
  const moved = () => dense(places).some((rank, index) => rank !== index + 1);
  return {
    board,
    feet: feet.map((row, index) => group(`Place of ${LETTERS[index]}`, false, row)),
    value: (final) => ({ ranks: final ? dense(places) : places, order_changed: moved(), confirmed }),
    missing() {
      const open = places.flatMap((place, index) => (place === null ? [LETTERS[index]] : []));
      return open.length ? `Not placed yet: ${open.join(", ")}.` : "";
    },
    confirm() {
      if (moved() || confirmed) return "";
      confirmed = true;
      return "This is the order in which they were shown. Submit once more if it is your ranking.";
    },
    strong: () => false,
    choose: (number, index) => number < k && (move(index, number + 1), true),
    act(action, index) {
      if (action === "unplace") return (move(index, null), true);
      return action === "up" ? step(index, -1) : action === "down" ? step(index, 1) : false;
    },
  };
}

function firstFree(places) {
  for (let place = 1; ; place++) if (!places.includes(place)) return place;
}

function whereIs(index, places) {
  if (places[index] === null) return `${LETTERS[index]}: not placed`;
  const tied = places.flatMap((place, i) => (i !== index && place === places[index] ? [LETTERS[i]] : []));
  return `${LETTERS[index]}: place ${places[index]}${tied.length ? `, tied with ${tied.join(", ")}` : ""}`;
}

// The places of one text as a row of cells.
export function placeCells(index, k, map, chosen) {
  const options = Array.from({ length: k }, (_, i) => ({
    value: i + 1,
    words: `${LETTERS[index]} in place ${i + 1}`,
    short: String(i + 1),
    key: map.choiceShown(i),
  }));
  return cells(`place-${index}`, options, null, chosen, "places");
}

function makeSlot(place) {
  const chips = el("div", { class: "chips" });
  if (place === null)
    return el(
      "div",
      { class: "slot tray", role: "group", "aria-label": "Not placed yet" },
      el("p", { class: "muted" }, "Not placed yet"),
      chips,
    );
  return el(
    "li",
    { class: "slot", "aria-label": `Place ${place}` },
    el("span", { class: "place", "aria-hidden": "true" }, String(place)),
    chips,
  );
}

function makeChip(index, text, step) {
  const button = (words, by, sign) => {
    const made = el(
      "button",
      { type: "button", class: "mover", "aria-label": `Move ${LETTERS[index]} ${words}` },
      sign,
    );
    made.addEventListener("click", () => step(by));
    return made;
  };
  const grip = el(
    "span",
    { class: "grip" },
    el("b", {}, LETTERS[index]),
    el("span", { class: "excerpt", dir: "auto" }, text.slice(0, EXCERPT)),
  );
  return el(
    "div",
    { class: "chip", tabindex: "0", role: "group" },
    grip,
    button("up", -1, "↑"),
    button("down", 1, "↓"),
  );
}

function describe(chip, index, places) {
  chip.setAttribute("aria-label", whereIs(index, places));
  const [up, down] = chip.querySelectorAll(".mover");
  // Not `disabled`: that would take the focus away from whoever just pressed it.
  up.setAttribute("aria-disabled", String(places[index] === 1));
  down.setAttribute("aria-disabled", String(places[index] === places.length));
}

// Pointer drag, for mouse, pen and finger alike; Escape puts it back.
function dragged(chip, slots, dropped) {
  let start = null;
  let over = null;
  const slotAt = (x, y) => slots.find((slot) => inside(slot.getBoundingClientRect(), x, y)) ?? null;
  const mark = (slot) => {
    over?.classList.remove("over");
    slot?.classList.add("over");
    over = slot;
  };
  const end = (take) => {
    if (!start) return;
    const target = start.moving && take ? over : null;
    mark(null);
    chip.classList.remove("dragging");
    chip.style.transform = "";
    start = null;
    if (target) dropped(target);
  };
  chip.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.target.closest("button")) return;
    start = { x: event.clientX, y: event.clientY, moving: false };
    chip.setPointerCapture(event.pointerId);
  });
  chip.addEventListener("pointermove", (event) => {
    if (!start) return;
    const [dx, dy] = [event.clientX - start.x, event.clientY - start.y];
    start.moving ||= Math.hypot(dx, dy) > DRAG_FROM;
    if (!start.moving) return;
    chip.classList.add("dragging");
    chip.style.transform = `translate(${dx}px, ${dy}px)`;
    mark(slotAt(event.clientX, event.clientY));
  });
  chip.addEventListener("pointerup", () => end(true));
  chip.addEventListener("pointercancel", () => end(false));
  chip.addEventListener("keydown", (event) => event.key === "Escape" && end(false));
}

const inside = ({ left, right, top, bottom }, x, y) => x >= left && x <= right && y >= top && y <= bottom;
