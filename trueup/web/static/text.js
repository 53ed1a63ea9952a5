// Text of people and models. It is hostile: it goes in as text nodes; what the server rendered is rebuilt node by node.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// The same characters as trueup/reports/visible.py: control, format, lone surrogates, separators, blanks, selectors.
const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\u2800\u{e0100}-\u{e01ef}]/gu;
// Joiners are spelling in these scripts and in emoji; there a mark would break words that are meant to be joined.
const JOINING =
  "Arabic Syriac Mongolian Devanagari Bengali Gujarati Gurmukhi Kannada Malayalam Oriya Sinhala Tamil Telugu".split(
    " ",
  );
const SCRIPTS = JOINING.map((name) => `\\p{Script=${name}}`).join("");
const JOINED = new RegExp(`[\\p{Extended_Pictographic}\\p{Emoji_Modifier}\\ufe0f${SCRIPTS}]`, "u");

function isPlain(text, index, char) {
  if (char === "\n" || char === "\t") return true;
  if (char !== "\u200c" && char !== "\u200d") return false;
  const before = [...text.slice(Math.max(0, index - 2), index)].at(-1);
  const after = text.codePointAt(index + 1);
  return Boolean(before) && after !== undefined && JOINED.test(before) && JOINED.test(String.fromCodePoint(after));
}

// The text with every character that hides or reorders spelled out.
export function visible(text) {
  const shown = document.createDocumentFragment();
  let from = 0;
  for (const { 0: char, index } of text.matchAll(HIDDEN)) {
    if (isPlain(text, index, char)) continue;
    const name = `U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
    shown.append(
      text.slice(from, index),
      el("span", { class: "hidden-mark", title: "a character that cannot be seen" }, name),
    );
    from = index + char.length;
  }
  shown.append(text.slice(from));
  return shown;
}

export const tidy = (text) => text.replace(/\r\n?/g, "\n");

const FENCED = /^(```[^\n]*\n[\s\S]*?^```[ \t]*(?:\n|$))/m;

// As it was typed: line breaks kept, fenced code in <pre>.
export function rawNodes(text) {
  const shown = document.createDocumentFragment();
  tidy(text)
    .split(FENCED)
    .forEach((part, index) => {
      if (part.trim() === "") return;
      if (index % 2) shown.append(el("pre", { tabindex: "0" }, el("code", {}, visible(part.trimEnd()))));
      else shown.append(el("div", { class: "typed", dir: "auto" }, visible(part.replace(/^\n+|\s+$/g, ""))));
    });
  return shown;
}

const TAGS = new Set(
  "P BR HR H1 H2 H3 H4 H5 H6 UL OL LI BLOCKQUOTE PRE CODE EM STRONG S TABLE THEAD TBODY TR TH TD SPAN DIV".split(" "),
);
const DIRECTED = new Set("P H1 H2 H3 H4 H5 H6 LI BLOCKQUOTE TH TD".split(" "));
const CLASSES = new Set(["hidden-mark", "link", "target", "raw"]);

// HTML that the server made safe, rebuilt from an allow-list: the parser's document never becomes part of the page.
export function safeNodes(html) {
  const parsed = new DOMParser().parseFromString(html, "text/html");
  const shown = document.createDocumentFragment();
  shown.append(...[...parsed.body.childNodes].map(rebuilt));
  return shown;
}

function rebuilt(node) {
  if (node.nodeType === Node.TEXT_NODE) return node.textContent;
  if (node.nodeType !== Node.ELEMENT_NODE) return "";
  const children = [...node.childNodes].map(rebuilt);
  if (!TAGS.has(node.tagName)) return el("span", {}, ...children);
  const attributes = DIRECTED.has(node.tagName) ? { dir: "auto" } : {};
  if (CLASSES.has(node.className)) attributes.class = node.className;
  if (node.tagName === "OL" && /^\d+$/.test(node.getAttribute("start") ?? ""))
    attributes.start = node.getAttribute("start");
  if (node.tagName === "PRE") attributes.tabindex = "0";
  // Headings of a text are not headings of the page: a screen reader's list of headings would be full of them.
  if (/^H\d$/.test(node.tagName)) return el("p", { ...attributes, class: "said-heading" }, ...children);
  const made = el(node.tagName.toLowerCase(), attributes, ...children);
  return node.tagName === "TABLE" ? el("div", { class: "scroll", tabindex: "0" }, made) : made;
}

// Differences by word: Myers' greedy shortest edit script, after what both begin and end with is put aside.

const WORD = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]|[\p{L}\p{N}\p{M}_'’]+|\S/gu;
const READ = /[\p{L}\p{N}]/u;
const MOST_EDITS = 2500; // its memory grows with the square: 25 MB here; texts further apart have nothing to compare

const words = (text) =>
  [...text.matchAll(WORD)].map(({ 0: word, index }) => ({ word, index, end: index + word.length }));

// Runs [text, changed] of both texts; `whole` is false where they differ too much to be compared word by word.
export function differences(a, b) {
  const left = words(a);
  const right = words(b);
  const kept = matching(
    left.map(({ word }) => word),
    right.map(({ word }) => word),
  );
  const inLeft = new Set(kept.pairs.map(([i]) => i));
  const inRight = new Set(kept.pairs.map(([, j]) => j));
  return { left: runs(a, left, inLeft), right: runs(b, right, inRight), whole: kept.whole };
}

function matching(a, b) {
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a.at(-1 - tail) === b.at(-1 - tail)) tail++;
  const middle = shortestEdit(a.slice(head, a.length - tail), b.slice(head, b.length - tail));
  const pairs = Array.from({ length: head }, (_, i) => [i, i]);
  for (const [i, j] of middle ?? []) pairs.push([i + head, j + head]);
  for (let t = tail; t > 0; t--) pairs.push([a.length - t, b.length - t]);
  return { pairs, whole: middle !== null };
}

// Pairs of equal places on a longest common subsequence; null when more than MOST_EDITS words differ.
function shortestEdit(a, b) {
  const most = Math.min(a.length + b.length, MOST_EDITS);
  const furthest = new Int32Array(2 * most + 3);
  const zero = most + 1;
  const trace = [];
  for (let d = 0; d <= most; d++) {
    trace.push(furthest.slice(zero - d - 1, zero + d + 2));
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || (k !== d && furthest[zero + k - 1] < furthest[zero + k + 1]);
      let x = down ? furthest[zero + k + 1] : furthest[zero + k - 1] + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
      furthest[zero + k] = x;
      if (x >= a.length && x - k >= b.length) return walkBack(trace, a.length, b.length);
    }
  }
  return null;
}

function walkBack(trace, x, y) {
  const pairs = [];
  for (let d = trace.length - 1; d >= 0; d--) {
    const at = (k) => trace[d][k + d + 1];
    const k = x - y;
    const down = k === -d || (k !== d && at(k - 1) < at(k + 1));
    const fromX = d === 0 ? 0 : at(down ? k + 1 : k - 1);
    const fromY = d === 0 ? 0 : fromX - (down ? k + 1 : k - 1);
    const startX = d === 0 ? 0 : fromX + (down ? 0 : 1);
    while (x > startX) pairs.push([--x, --y]);
    [x, y] = [fromX, fromY];
  }
  return pairs.reverse();
}

function runs(text, found, kept) {
  const made = [];
  let from = 0;
  for (let i = 0; i < found.length; i++) {
    if (kept.has(i)) continue;
    const start = found[i].index;
    while (i + 1 < found.length && !kept.has(i + 1)) i++;
    made.push([text.slice(from, start), false], [text.slice(start, found[i].end), true]);
    from = found[i].end;
  }
  made.push([text.slice(from), false]);
  return made.filter(([run]) => run !== "");
}

// Both as one text, what went before what came: runs [text, "del" | "ins" | ""], and how many words went and came.
export function changes(before, after) {
  const left = words(before);
  const right = words(after);
  const { pairs, whole } = matching(
    left.map(({ word }) => word),
    right.map(({ word }) => word),
  );
  const runs = [];
  let [i, j, at] = [0, 0, 0];
  for (const [x, y] of [...pairs, [left.length, right.length]]) {
    if (x > i || y > j) {
      const start = right[j]?.index ?? after.length;
      const end = y > j ? right[y - 1].end : start;
      runs.push([after.slice(at, start), ""]);
      if (x > i) runs.push([before.slice(left[i].index, left[x - 1].end), "del"]);
      if (x > i && (y > j || READ.test(after[end]))) runs.push([" ", ""]);
      if (y > j) runs.push([after.slice(start, end), "ins"]);
      at = end;
    }
    [i, j] = [x + 1, y + 1];
  }
  runs.push([after.slice(at), ""]);
  return { runs: runs.filter(([run]) => run !== ""), out: count(runs, "del"), added: count(runs, "ins"), whole };
}

function count(runs, kind) {
  const found = runs.filter(([, mark]) => mark === kind).flatMap(([run]) => run.match(WORD) ?? []);
  return found.filter((word) => READ.test(word)).length;
}

// Runs as one block of text. A run says itself how it is marked ("ins", "del"), or `tag` does for all that changed.
export function markedNodes(runs, tag = "") {
  const block = el("div", { class: "typed", dir: "auto" });
  for (const [text, mark] of runs) block.append(mark ? el(tag || mark, {}, visible(text)) : visible(text));
  return block;
}
