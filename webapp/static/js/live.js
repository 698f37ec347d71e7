// The live connection: its state, and what it brings, as events of this module's target.

import { io } from "../vendor/socket.io-client-4.8.4/socket.io.esm.min.js";
import * as clock from "./clock.js";
import * as refresh from "./refresh.js";

const WORDS = {
  live: "Live",
  "catching-up": "Catching up",
  offline: "Offline",
};
const BANNERS = {
  offline: "The connection is lost. What you see may be out of date; it is brought up to date as soon as the server answers.",
  away: "Live updates pause for a moment. The page is loaded again every few seconds instead.",
};
const BANNER_AFTER = 1500;
const RETRY = 2500;
const POLL = 5000;
const EVENTS = ["job", "queue", "notification", "log", "fleet"];

/** Dispatches what the server sends, under the names of the events. */
export const target = new EventTarget();

let socket = null;
let seq = 0;
let isCut = false; // the browser has no network
let isAway = false; // the broker cannot be reached, so nothing is told
let isCurrent = false; // the page shows the truth
let isOver = false; // the reader is signed out, or what the page shows is gone
let told = ""; // what the banner is for
let bannerTimer = null;
let pollTimer = null;
const seen = new Map();

/** Ask the server for something; resolves to its answer, or null if it does not answer. */
export async function ask(event, body) {
  try {
    return await socket.timeout(5000).emitWithAck(event, body);
  } catch {
    return null;
  }
}

/** Tell whether a change is newer than what is known of its job. */
export function isNews(change) {
  if (change.seq === undefined) return true;
  const key = `${change.owner}/${change.job_id}`;
  if ((seen.get(key) ?? 0) >= change.seq) return false;
  seen.set(key, change.seq);
  return true;
}

export function start() {
  const body = document.body.dataset;
  seq = Number(body.seq) || 0;
  refresh.onRefresh((fresh) => noteSeq(Number(fresh.body.dataset.seq) || 0));
  refresh.onTry((hasWorked) => {
    isCurrent = hasWorked;
    showState();
  });
  socket = io("/", {
    transports: ["websocket", "polling"],
    tryAllTransports: true,
    reconnectionDelay: 400,
    reconnectionDelayMax: 4000,
    auth: (give) => give({ seq, all: "all" in body }),
  });
  socket.on("connect", connected);
  socket.on("disconnect", lost);
  socket.on("connect_error", refused);
  socket.on("reload", ({ seq: newest }) => {
    noteSeq(newest);
    refresh.now();
  });
  socket.on("live", ({ state: told }) => (told === "live" ? brokerBack() : brokerAway()));
  for (const name of EVENTS) socket.on(name, (detail) => deliver(name, detail));
  window.addEventListener("offline", () => setCut(true));
  window.addEventListener("online", () => setCut(false));
  document.addEventListener("fairq:signed-out", signedOut);
  document.addEventListener("fairq:gone", gone);
}

function deliver(name, detail) {
  if (detail.seq) noteSeq(detail.seq);
  if (name === "queue") clock.synchronise(detail.at);
  target.dispatchEvent(new CustomEvent(name, { detail }));
}

function noteSeq(newest) {
  seq = Math.max(seq, newest);
}

function setCut(cut) {
  isCut = cut;
  showState();
  if (cut) return;
  if (socket.connected) connected();
  else socket.connect();
}

async function connected() {
  isCut = false;
  isCurrent = false;
  showState();
  await refresh.now();
  if (socket.connected) target.dispatchEvent(new CustomEvent("connected"));
}

function lost(reason) {
  showState();
  if (reason === "io server disconnect") comeBack(); // Socket.IO takes that for an answer
}

function refused(error) {
  if (error.message === "unauthenticated") {
    signedOut();
    return;
  }
  showState();
  if (!socket.active) comeBack();
}

/** Connect again where Socket.IO does not: the server lets the reader in, or says that they are out. */
function comeBack() {
  setTimeout(() => socket.connect(), RETRY);
}

function signedOut() {
  const here = encodeURIComponent(location.pathname + location.search);
  end("You are signed out.", `/sign-in?next=${here}`, "Sign in again");
}

function gone() {
  end("What this page shows was deleted, or is not for you to see any more.", "/", "See your jobs");
}

/** Follow nothing any more, and say why and where to go on. */
function end(why, href, onward) {
  setState("offline");
  isOver = true;
  clearInterval(pollTimer);
  socket.disconnect();
  const banner = document.querySelector("[data-live-banner]");
  clearTimeout(bannerTimer);
  const link = document.createElement("a");
  link.href = href;
  link.textContent = onward;
  banner.replaceChildren(why, link);
  banner.hidden = false;
}

function brokerAway() {
  isAway = true;
  showState();
  pollTimer ??= setInterval(() => refresh.request(), POLL);
}

function brokerBack() {
  if (!isAway) return;
  isAway = false;
  clearInterval(pollTimer);
  pollTimer = null;
  connected();
}

function showState() {
  if (isOver) return;
  if (isCut || !socket.connected) setState("offline");
  else if (isAway) setState("catching-up", "away");
  else setState(isCurrent ? "live" : "catching-up");
}

function setState(next, banner = next) {
  if (banner === told) return;
  told = banner;
  const element = document.querySelector("[data-live-state]");
  element.hidden = false;
  element.dataset.state = next;
  if (element.textContent !== WORDS[next]) element.textContent = WORDS[next];
  clearTimeout(bannerTimer);
  if (BANNERS[banner]) bannerTimer = setTimeout(() => showBanner(next, BANNERS[banner]), BANNER_AFTER);
  else document.querySelector("[data-live-banner]").hidden = true;
}

function showBanner(next, words) {
  const element = document.querySelector("[data-live-banner]");
  element.dataset.state = next;
  element.textContent = words;
  element.hidden = false;
}
