// What does not fit: a page that scrolls sideways, text that its box cuts off, neighbours that overlap.
() => {
  const wrong = [];
  const { scrollWidth, clientWidth } = document.documentElement;
  if (scrollWidth > clientWidth) wrong.push(`the page scrolls sideways: ${scrollWidth} of ${clientWidth}`);

  const boxes = ".cell, button, .said, .chip-check, .state, h1, h2, legend, label, .progress, td, dd, .card, .below";
  for (const node of document.querySelectorAll(boxes)) {
    const { display, overflowX } = getComputedStyle(node);
    if (!node.checkVisibility() || node.matches(".unseen") || display === "inline" || overflowX === "auto") continue;
    if (!node.closest(".scroll") && node.scrollWidth > node.clientWidth + 1)
      wrong.push(`cut: ${node.outerHTML.slice(0, 100)}`);
  }
  const rows = ".bar, .dock-row, .actions, .cells, .texts, .ask, .reading-tools, .slots, .chips, .rows";
  for (const row of document.querySelectorAll(rows)) {
    const shown = [...row.children].filter((node) => node.checkVisibility() && node.getClientRects().length > 0);
    const places = shown.map((node) => node.getBoundingClientRect());
    places.forEach((a, i) =>
      places.slice(i + 1).forEach((b, j) => {
        const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        const pair = [shown[i], shown[i + 1 + j]].map((node) => node.outerHTML.slice(0, 60));
        if (across > 1.5 && down > 1.5) wrong.push(`overlap: ${pair.join(" and ")}`);
      }),
    );
  }
  return wrong;
};
