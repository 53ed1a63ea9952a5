// What an accessibility checker would complain about, as far as our pages can get it wrong: a list of sentences.
() => {
  const wrong = [];
  const say = (what, node) => wrong.push(`${what}: ${node.outerHTML.slice(0, 120)}`);
  const shown = (node) => node.checkVisibility({ visibilityProperty: true }) && node.getClientRects().length > 0;
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

  const controls = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']";
  for (const node of document.querySelectorAll(controls)) {
    if (!shown(node)) continue;
    if (!name(node)) say("no name", node);
    const label = node.matches("[type=checkbox], [type=radio]") ? node.closest("label") : null;
    const { width, height } = (label ?? node).getBoundingClientRect();
    const inline = node.matches("p a, li a, dd a, td a, .jump"); // WCAG 2.5.8 lets links within text be small
    if (!inline && Math.min(width, height) < 24) say(`small target, ${width} by ${height}`, node);
  }
  const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) wrong.push(`id twice: ${id}`);
  for (const attribute of ["aria-labelledby", "aria-describedby", "for"])
    for (const node of document.querySelectorAll(`:not(dialog)[${attribute}]`))
      if (
        node
          .getAttribute(attribute)
          .split(" ")
          .some((id) => !document.getElementById(id))
      )
        say("points nowhere", node);
  const titles = [...document.querySelectorAll("h1")].filter(
    (node) => shown(node) && !node.closest("[aria-label=Guideline]"),
  );
  if (titles.length !== 1) wrong.push("not one h1");
  if (document.querySelector("[style], [onclick], [onload], [onerror]")) wrong.push("inline style or handler");
  if (!document.documentElement.lang || !document.title.trim()) wrong.push("no language or no title");
  return wrong;
};
