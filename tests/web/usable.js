// What an accessibility checker would complain about, as far as our pages can get it wrong: a list of sentences.
// docs/accessibility.md says which criterion of WCAG each check stands for.
() => {
  const wrong = [];
  const say = (what, node) => wrong.push(`${what}: ${node.outerHTML.slice(0, 120)}`);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const shown = (node) => node.checkVisibility({ visibilityProperty: true }) && node.getClientRects().length > 0;
  const text = (words) => words.replace(/\s+/g, " ").trim().toLowerCase();
  const named = (ids) =>
    (ids ?? "")
      .split(" ")
      .map((id) => document.getElementById(id)?.textContent ?? "")
      .join(" ");
  const labels = (node) => [...(node.labels ?? [])].map((label) => label.textContent).join(" ");
  const own = (node) => (node.matches("input, select, textarea") ? "" : node.textContent);
  const name = (node) =>
    [node.getAttribute("aria-label"), named(node.getAttribute("aria-labelledby")), labels(node), own(node)].find(
      (each) => each?.trim(),
    );
  // What stands on a control, without its key and without signs that are no words.
  const seen = (node) => {
    if (node.nodeType === Node.TEXT_NODE) return node.data;
    if (!node.tagName || !shown(node) || node.matches("kbd, .mark, .unseen")) return "";
    return [...node.childNodes].map(seen).join("");
  };

  const controls = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']";
  for (const node of all(controls).filter(shown)) {
    if (!name(node)) say("no name", node);
    const label = node.matches("[type=checkbox], [type=radio]") ? node.closest("label") : null;
    const { width, height } = (label ?? node).getBoundingClientRect();
    const inline = node.matches("p a, li a, dd a, td a, .jump"); // links within text may be small
    if (!inline && Math.min(width, height) < 24) say(`small target, ${width} by ${height}`, node);
    const words = text(node.matches("button, a, summary, input[type=radio]") ? seen(label ?? node) : "");
    if (/\p{L}/u.test(words) && !text(name(node) ?? "").includes(words)) say(`called otherwise than "${words}"`, node);
  }
  for (const node of all("[tabindex]")) if (node.tabIndex > 0) say("an order of its own", node);
  for (const node of all("[role=group], fieldset, dialog[open]").filter(shown)) {
    const legend = node.matches("fieldset") ? node.querySelector("legend")?.textContent : "";
    const given = node.getAttribute("aria-label") || named(node.getAttribute("aria-labelledby")) || legend;
    if (!given?.trim()) say("a group without a name", node);
  }

  const ids = all("[id]").map(({ id }) => id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) wrong.push(`id twice: ${id}`);
  for (const attribute of ["aria-labelledby", "aria-describedby", "for"])
    for (const node of all(`:not(dialog)[${attribute}]`)) {
      const places = node.getAttribute(attribute).split(" ");
      if (places.some((id) => !document.getElementById(id))) say("points nowhere", node);
    }

  const headings = all("h1, h2, h3, h4, h5, h6").filter(shown);
  if (headings.filter((node) => node.matches("h1")).length !== 1) wrong.push("not one h1");
  headings.reduce((before, node) => {
    const level = Number(node.tagName[1]);
    if (level > before + 1) say(`h${level} after h${before}`, node);
    return level;
  }, 0);
  for (const node of all("table").filter(shown)) {
    if (!node.closest(".said, [dir=auto]") && !node.querySelector("th[scope]")) say("a table without headings", node);
  }
  for (const node of all("img, svg[role=img]")) {
    if (!name(node) && !node.getAttribute("alt")) say("a picture without words", node);
  }
  for (const node of all(".error").filter(shown)) {
    if (!node.closest("[role=alert], [aria-live], .dock")) say("not announced", node);
  }

  if (all("main").length !== 1) wrong.push("not one main");
  if (!document.querySelector("body > a.jump[href='#main']")) wrong.push("no way past the bar");
  if (document.querySelector("[style], [onclick], [onload], [onerror]")) wrong.push("inline style or handler");
  const restless = "[autofocus], meta[http-equiv=refresh], marquee, blink, video, audio";
  if (document.querySelector(restless)) wrong.push("moves by itself");
  if (!document.documentElement.lang || !document.title.trim()) wrong.push("no language or no title");
  const zoom = document.querySelector("meta[name=viewport]")?.content ?? "";
  if (/user-scalable|maximum-scale/.test(zoom)) wrong.push("cannot be enlarged");
  return wrong;
};
