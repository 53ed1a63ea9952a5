// A page of runs that stays true: how far a run is comes every few seconds, the rest when there is more to tell. What was
// opened stays open, what was ticked stays ticked, and nothing moves under a page that nobody looks at.

const live = document.getElementById("live");
const every = Number(live.dataset.every);
let state = live.dataset.state;

async function look() {
  if (document.hidden) return;
  if (!live.dataset.now) return refresh();
  const now = await (await get(live.dataset.now)).json();
  put(document.getElementById("now"), now.html);
  if (now.state !== state) {
    await refresh();
    state = now.state;
  }
}

async function refresh() {
  const page = parsed(await (await get(location.href)).text());
  for (const part of live.querySelectorAll("[data-part]")) {
    const next = page.querySelector(`[data-part="${part.dataset.part}"]`);
    if (next) put(part, next.innerHTML);
  }
}

// The markup is this server's own: every text in it is escaped there, and a script in it would not run.
function put(node, html) {
  if (node.seen === html) return;
  node.seen = html;
  const ticked = new Set([...node.querySelectorAll("input:checked")].map((input) => input.value));
  const opened = new Map([...node.querySelectorAll("details[id]")].map((details) => [details.id, details.open]));
  const focus = node.contains(document.activeElement) ? describe(document.activeElement) : null;
  node.replaceChildren(...parsed(html).body.childNodes);
  for (const input of node.querySelectorAll("input")) input.checked = ticked.has(input.value);
  for (const details of node.querySelectorAll("details[id]")) details.open = opened.get(details.id) ?? details.open;
  if (focus) [...node.querySelectorAll("a, button, input, summary, [tabindex]")].find((each) => describe(each) === focus)?.focus();
}

const parsed = (html) => new DOMParser().parseFromString(html, "text/html");
const describe = (node) => [node.tagName, node.id, node.name, node.value, node.getAttribute("href"), node.textContent].join("|");

async function get(address) {
  const answer = await fetch(address, { headers: { "x-trueup": "1" }, redirect: "error" });
  if (!answer.ok) throw new Error(String(answer.status));
  return answer;
}

async function go() {
  try {
    await look();
    document.body.classList.remove("late");
  } catch {
    document.body.classList.add("late"); // the server is gone: what stands here is from before
  }
  setTimeout(go, every);
}

for (const part of live.querySelectorAll("[data-part], #now")) {
  part.seen = part.innerHTML; // as it came, to be compared with what comes
}
setTimeout(go, every);
