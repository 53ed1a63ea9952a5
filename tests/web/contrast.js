// Text and edges of controls with too little contrast (WCAG 1.4.3, 1.4.11), from the colours that are really drawn.
() => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const read = (colour) => {
    if (!known.has(colour)) {
      pen.clearRect(0, 0, 1, 1);
      pen.fillStyle = colour;
      pen.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
      known.set(colour, [r, g, b, a / 255]);
    }
    return known.get(colour);
  };
  const over = ([r, g, b, a], under) => [r, g, b].map((part, i) => part * a + under[i] * (1 - a));
  const linear = (part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const contrast = (a, b) => {
    const [high, low] = [light(a), light(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const up = (node) => (node ? [...up(node.parentElement), node] : []);
  const paper = (node) =>
    up(node).reduce((under, each) => over(read(getComputedStyle(each).backgroundColor), under), [255, 255, 255]);
  const faded = (node) => up(node).reduce((all, each) => all * Number(getComputedStyle(each).opacity), 1);
  const drawn = (colour, node) => {
    const [r, g, b, a] = read(colour);
    return over([r, g, b, a * faded(node)], paper(node));
  };

  const wrong = [];
  const idle = "[aria-disabled=true], :disabled, .unseen, .jump"; // exempt, or not seen
  const shown = (node) => node.checkVisibility({ visibilityProperty: true }) && node.getClientRects().length > 0;
  const say = (what, found, least, node) =>
    found < least - 0.005 && wrong.push(`${what} ${found.toFixed(2)} of ${least}: ${node.outerHTML.slice(0, 120)}`);

  for (const node of document.body.querySelectorAll("*")) {
    if (!shown(node) || node.closest(idle) || node.matches("script, noscript, option, title")) continue;
    const style = getComputedStyle(node);
    const hasText = [...node.childNodes].some((each) => each.nodeType === Node.TEXT_NODE && each.textContent.trim());
    if (hasText || node.matches("input:not([type=radio], [type=checkbox]), select, textarea")) {
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
      const colour = node.closest("svg") ? style.fill : style.color;
      say("text", contrast(drawn(colour, node), paper(node)), large ? 3 : 4.5, node);
    }
    const bordered = parseFloat(style.borderBottomWidth) > 0;
    if (bordered && node.matches("button, .button, input, select, textarea, .cell, .chip-check")) {
      const around = paper(node.parentElement);
      const edge = over(read(style.borderBottomColor), around);
      const filled = paper(node); // a control that is filled needs no edge
      say("edge", Math.max(contrast(edge, around), contrast(filled, around)), 3, node);
    }
  }
  return wrong;
};
