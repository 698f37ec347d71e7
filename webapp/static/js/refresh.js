// Brings the page up to date: loads it again and morphs the parts that are marked data-part.
// The server renders once, for the first look and for every later one.

import * as clock from "./clock.js";
import { morph } from "./morph.js";

const GATHER = 120;
const PAUSE = 1000;
const RETRY = 5000;
const GONE = new Set([403, 404, 410]); // answers that would be the same the next time

const listeners = [];
const witnesses = [];
let timer = null;
let running = null;
let again = false;
let last = 0;
let stale = false;

/** Call *listener* with the fresh document after every update. */
export function onRefresh(listener) {
  listeners.push(listener);
}

/** Call *witness* after every try to update, with whether the page now shows the truth. */
export function onTry(witness) {
  witnesses.push(witness);
}

/** Tell whether a reader is being asked something: the page stays as it was when they were asked. */
const isAsking = () => document.querySelector("dialog[open]") !== null;

/** Update soon; calls that come together share one update. A hidden page waits until it is seen. */
export function request() {
  after(Math.max(GATHER, last + PAUSE - performance.now()));
}

function after(pause) {
  if (document.hidden || isAsking()) stale = true;
  else timer ??= setTimeout(now, pause);
}

/** Update at once. Resolves to whether the page now shows the truth. */
export function now() {
  clearTimeout(timer);
  timer = null;
  if (running) {
    again = true;
    return running;
  }
  running = update().finally(() => {
    running = null;
    last = performance.now();
    if (again) {
      again = false;
      request();
    }
  });
  return running;
}

async function update() {
  stale = false;
  const isCurrent = await load();
  for (const witness of witnesses) witness(isCurrent);
  return isCurrent;
}

async function load() {
  if (document.querySelector('meta[name="answers-a-form"]')) return true; // it has no address
  const { response, text } = await read();
  if (response?.redirected && new URL(response.url).pathname === "/sign-in") {
    document.dispatchEvent(new CustomEvent("fairq:signed-out"));
    return false;
  }
  if (GONE.has(response?.status)) {
    document.dispatchEvent(new CustomEvent("fairq:gone"));
    return false;
  }
  if (!response?.ok) {
    after(Math.max(RETRY, 1000 * (parseInt(response?.headers.get("Retry-After"), 10) || 0)));
    return false;
  }
  if (isAsking()) {
    stale = true;
    return false;
  }
  apply(new DOMParser().parseFromString(text, "text/html"));
  return true;
}

/** Read the page again; nothing of it if the server does not answer. */
async function read() {
  try {
    const response = await fetch(location.href, { headers: { Accept: "text/html" } });
    return { response, text: await response.text() };
  } catch {
    return {};
  }
}

function apply(fresh) {
  const time = fresh.querySelector('meta[name="server-time"]');
  if (time) clock.synchronise(time.content);
  clock.show(fresh);
  const reveals = fresh.querySelectorAll("[data-with-scripts]");
  for (const element of reveals) element.hidden = false;
  keepFocus(() => {
    for (const part of document.querySelectorAll("[data-part]")) {
      const wanted = fresh.getElementById(part.id);
      if (!wanted) part.replaceChildren();
      else for (const element of morph(part, wanted)) element.classList?.add("arrived");
    }
  });
  for (const listener of listeners) listener(fresh);
}

/** Make a change. Where it takes away what had the focus, a link near there or the place gets it. */
function keepFocus(change) {
  const focused = document.activeElement;
  const around = [];
  for (let here = focused; here && here !== document.body; here = here.parentElement) around.push(here);
  change();
  if (document.contains(focused) && !focused.disabled) return;
  for (const place of around.filter((one) => document.contains(one))) {
    const near = place.matches("[tabindex]") ? place : place.querySelector("a[href]");
    near?.focus({ preventScroll: true });
    if (near) return;
  }
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && stale) now();
});

window.addEventListener("pageshow", ({ persisted }) => persisted && request()); // kept by the browser

document.addEventListener("close", () => stale && request(), { capture: true }); // of a dialog
