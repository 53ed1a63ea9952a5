// What is read: the prompt and the texts, formatted or as typed, compared by word, covered until somebody asks.

import { LETTERS } from "./controls.js";
import { differences, el, markedNodes, rawNodes, safeNodes, tidy } from "./text.js";

const ROLES = { system: "System", user: "Person", assistant: "Assistant" };
const at = (id) => document.getElementById(id);

// Of a part: the prompt, then the texts, then what helpers say.
export const nameIn = (view) => (part) =>
  part === 0 ? "the prompt" : part > view.completions.length ? "what helpers say" : LETTERS[part - 1];

// desk = {map, formatted(), flags, feet, help, select(index, focus), act(action), tell(words, kind), say(words),
// uncover(parts)}
export function reading(view, desk) {
  const { map, formatted, flags, help, select, act, tell, say } = desk;
  const nameOf = nameIn(view);
  const covered = () => view.covered.flatMap((yes, part) => (yes && !view.shown.includes(part) ? [part] : []));
  const cards = view.completions.map((_, index) => card(index, desk));
  let compared = -1; // the text that the others are compared with; -1: none
  let farApart = false;

  const nodesOf = (text, html) => (formatted() && html !== undefined ? safeNodes(html) : rawNodes(text));

  const fill = () => {
    const hidden = new Set(covered());
    at("prompt").replaceChildren(promptHead, ...(hidden.has(0) ? [cover(0)] : view.prompt.map(message)));
    cards.forEach((each, index) => {
      each.querySelector(".said").replaceChildren(hidden.has(index + 1) ? cover(index + 1) : shownText(index));
    });
    help?.fill(nodesOf, hidden.has(cards.length + 1) ? cover(cards.length + 1) : null);
    at("judging").classList.toggle("covered", hidden.size > 0);
  };

  const message = ({ role, content }, index) => {
    const said = el("div", { class: "said" }, nodesOf(content, view.rendered?.prompt[index]));
    const heading = view.prompt.length > 1 ? el("h3", {}, ROLES[role] ?? role) : null;
    return el("div", { class: `message ${role}` }, heading, said);
  };

  // With a comparison: what the other text does not have is marked; in the text compared with, what it alone has.
  const shownText = (index) => {
    const { completions, rendered } = view;
    if (compared < 0) return nodesOf(completions[index], rendered?.completions[index]);
    const other = index === compared ? (completions.length === 2 ? 1 - index : -1) : compared;
    if (other < 0) return rawNodes(completions[index]);
    const found = differences(tidy(completions[other]), tidy(completions[index]));
    if (!found.whole) {
      farApart = true;
      return rawNodes(completions[index]);
    }
    return markedNodes(found.right, index === 0 && completions.length === 2 ? "del" : "ins");
  };

  // Nothing of a covered text is in the page, nor in the view: no glance, search or screen reader comes upon it.
  const cover = (part) => {
    const words = `${nameOf(part)} is covered: it may be upsetting.`;
    const button = el("button", { type: "button" }, `Show ${nameOf(part)} `, map.cap("reveal") ?? "");
    button.addEventListener("click", () => desk.uncover([part]));
    return el("div", { class: "cover" }, el("p", {}, words[0].toUpperCase() + words.slice(1)), button);
  };

  const stillCovered = () => (covered().length ? `Covered: ${covered().map(nameOf).join(", ")}.` : "");

  const compare = (index) => {
    if (covered().length) return tell(`${stillCovered()} Show it first.`, "calm");
    compared = index;
    farApart = false;
    showTools();
    fill();
    if (farApart) return tell("These texts have too little in common to be compared by word.", "calm");
    say(index < 0 ? "Differences are not shown" : "Differences are shown");
  };

  const showTools = () => {
    const on = { rendered: !formatted(), differences: compared >= 0 };
    for (const button of at("tools").querySelectorAll("[data-tool]"))
      button.setAttribute("aria-pressed", String(on[button.dataset.tool]));
    if (at("compared")) at("compared").value = compared;
  };

  const redraw = () => {
    showTools();
    fill();
    say(formatted() ? "Shown formatted" : "Shown as typed");
  };

  const k = view.completions.length;
  const orSkip = view.skippable ? ", or skip it" : "";
  const promptHead = el("header", {}, el("h2", {}, "Prompt"), flags[0].node);
  const typed = view.rendered ? toggle("As typed", "rendered", map, act) : null;
  const two = k === 2 ? toggle("Differences", "differences", map, act) : null;
  const more = k > 2 ? choice(view, map, compare) : null;
  cards.forEach((each, index) => each.addEventListener("focusin", () => select(index, false)));
  at("texts").replaceChildren(...cards);
  at("tools").replaceChildren(...[typed, two, more].filter(Boolean));
  showTools();
  fill();
  return {
    cards,
    redraw,
    uncover: () => covered().length && desk.uncover(covered()),
    missing: () => (covered().length ? `${stillCovered()} Show it before you answer${orSkip}.` : ""),
    covered: stillCovered,
    compareWith(selected) {
      const wanted = k === 2 ? 0 : selected;
      if (k > 1) compare(compared === wanted ? -1 : wanted);
    },
  };
}

function card(index, { flags, feet }) {
  const name = el("h2", { id: `name-${index}` }, LETTERS[index]);
  return el(
    "article",
    { class: "text", tabindex: "-1", "aria-labelledby": name.id },
    el("header", {}, name, flags[index + 1].node),
    el("div", { class: "said" }),
    feet[index] ? el("footer", {}, feet[index]) : null,
  );
}

function toggle(words, action, map, act) {
  const made = el("button", { type: "button", class: "plain", "data-tool": action }, words, " ", map.cap(action));
  made.addEventListener("click", () => act(action));
  return made;
}

function choice(view, map, compare) {
  const options = view.completions.map((_, i) => el("option", { value: i }, LETTERS[i]));
  const chosen = el("select", { id: "compared" }, el("option", { value: -1 }, "nothing"), ...options);
  chosen.addEventListener("change", () => compare(Number(chosen.value)));
  const label = el("label", { for: "compared" }, "Compare with ", map.cap("differences"));
  return el("span", { class: "comparing" }, label, chosen);
}
