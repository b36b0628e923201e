// Keeps a page true without loading it anew: what has data-live is replaced when something happened, and when it is other
// than before. While the page is hidden nothing is asked.

const QUIET_MS = 400; // after an event, for those that come with it
const LEAST_MS = 1500; // between two looks
const MOST_MS = 10000; // between two looks where nothing was told
const FEED = 40; // events that are kept on the page

let source = null;
let timer = 0;
let looked = Date.now();
let looking = false;
let told_meanwhile = false; // an event that came during a look, which may have read what was before it
const was = new WeakMap(); // what the daemon sent of each part: charts and times change what is there
for (const part of document.querySelectorAll("[data-live]")) was.set(part, part.innerHTML);

function later(ms) {
  clearTimeout(timer);
  timer = setTimeout(look, Math.max(ms, LEAST_MS - (Date.now() - looked)));
}

async function look() {
  if (document.hidden || looking || !document.querySelector("main [data-live]")) return;
  looking = true;
  told_meanwhile = false;
  try {
    const reply = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (reply.ok && !reply.redirected) replace(new DOMParser().parseFromString(await reply.text(), "text/html"));
  } catch {
    // The daemon is away; the next look tells when it is back.
  } finally {
    looked = Date.now();
    looking = false;
    later(told_meanwhile ? QUIET_MS : MOST_MS);
  }
}

function replace(fresh) {
  for (const old of document.querySelectorAll("[data-live]")) {
    const made = fresh.getElementById(old.id);
    if (!made || was.get(old) === made.innerHTML) continue;
    if ([...old.querySelectorAll("input, textarea")].some((one) => one.type !== "hidden" && one.value !== one.defaultValue)) continue;
    if (old.contains(document.activeElement) && /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) continue;
    const focused = old.contains(document.activeElement) ? place(old, document.activeElement) : null;
    const scrolled = [...old.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
    const unfolded = [...old.querySelectorAll("details")].map((one) => one.open);
    was.set(old, made.innerHTML);
    old.replaceChildren(...made.cloneNode(true).childNodes);
    old.querySelectorAll(".scroll").forEach((one, index) => (one.scrollLeft = scrolled[index] ?? 0));
    old.querySelectorAll("details").forEach((one, index) => (one.open = unfolded[index] ?? one.open));
    if (focused) focusable(old)[focused.index]?.focus({ preventScroll: true });
    old.dispatchEvent(new CustomEvent("replaced", { bubbles: true }));
  }
}

const focusable = (root) => [...root.querySelectorAll("a[href], button, input, select, textarea, [tabindex]")];
const place = (root, element) => ({ index: focusable(root).indexOf(element) });

function told(message) {
  const event = JSON.parse(message.data);
  const feed = document.getElementById("feed");
  if (feed) show(feed, event);
  told_meanwhile = true;
  later(QUIET_MS);
}

function show(feed, { topic, time, ...facts }) {
  feed.querySelector(".none")?.remove();
  const row = document.createElement("li");
  row.className = "fresh";
  const texts = [["", time.slice(11, 19)], ["topic", topic], ["facts", Object.entries(facts).map(([name, value]) => `${name} ${value}`).join(", ")]];
  for (const [name, text] of texts) {
    const cell = document.createElement("span");
    cell.className = name;
    cell.textContent = text;
    row.append(cell);
  }
  feed.prepend(row);
  while (feed.children.length > FEED) feed.lastChild.remove();
}

const SPANS = [[31536000, "y"], [86400, "d"], [3600, "h"], [60, "m"], [1, "s"]];
function age() {
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const seconds = Math.max(0, (Date.now() - Date.parse(time.dateTime)) / 1000);
    const [length, unit] = SPANS.find(([length]) => seconds >= length) ?? [1, "s"];
    const text = `${Math.floor(seconds / length)}${unit} ago`;
    if (time.textContent !== text) time.textContent = text;
  }
}

// One connection a tab, and browsers have six to a host: a tab that nobody sees gives its own back.
function listen() {
  source?.close();
  source = null;
  delete document.documentElement.dataset.live;
  clearTimeout(timer);
  if (document.hidden || !document.querySelector("main [data-live]")) return;
  source = new EventSource("/events");
  source.onmessage = told;
  source.onopen = () => {
    document.documentElement.dataset.live = ""; // from here on all is heard
    later(QUIET_MS); // and what happened before
  };
  later(MOST_MS);
}

document.addEventListener("visibilitychange", listen);
addEventListener("pagehide", () => source?.close());
document.querySelector("nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" }); // on a phone
listen();
setInterval(age, 15000);
