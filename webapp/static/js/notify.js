// Tells the reader what became of their jobs: a toast, the bell, and the browser if allowed.

import * as clock from "./clock.js";
import { target } from "./live.js";
import { icon, jobUrl } from "./elements.js";
import { keep, recall } from "./kept.js";
import { onRefresh } from "./refresh.js";

const SHOWN_FOR = 9000;
const GATHER = 500;
const TOASTS_AT_ONCE = 3;
const NARROW = matchMedia("(max-width: 600px)");
const LISTED = 20;

const told = new Set();
let waiting = [];
let gathered = null;

const READ = "read"; // up to which note

/** Show a passing message; *status* gives it its look. Returns its element. */
export function toast({ title, message = "", status = "", url = "" }) {
  const box = document.createElement("div");
  box.className = "toast";
  if (status) box.dataset.status = status;
  const strong = document.createElement("strong");
  if (url) {
    const link = document.createElement("a");
    link.href = url;
    link.textContent = title;
    strong.append(link);
  } else {
    strong.textContent = title;
  }
  const close = document.createElement("button");
  close.type = "button";
  close.className = "icon-button";
  close.setAttribute("aria-label", "Close");
  close.append(icon("x"));
  close.addEventListener("click", () => box.remove());
  const text = document.createElement("p");
  text.textContent = message;
  box.append(icon(status || "info"), strong, close, text);
  document.querySelector("[data-toasts]").append(box);
  const leave = () => (box.matches(":hover, :focus-within") ? setTimeout(leave, SHOWN_FOR / 3) : box.remove());
  setTimeout(leave, SHOWN_FOR);
  return box;
}

/** Tell of many ends in one message, which takes the place of the one before. */
function digest(notes) {
  const before = gathered?.box.isConnected ? gathered : null;
  const all = before ? [...before.notes, ...notes] : notes;
  before?.box.remove();
  gathered = { notes: all, box: toast(summary(all)) };
}

function take(note) {
  if (told.has(note.seq)) return;
  told.add(note.seq);
  if (waiting.length === 0) setTimeout(tell, GATHER);
  waiting.push(note);
}

function tell() {
  const notes = waiting;
  waiting = [];
  for (const note of notes.slice(-LISTED)) list(note);
  count();
  const shown = document.querySelectorAll(".toast").length;
  const room = NARROW.matches ? 1 : TOASTS_AT_ONCE;
  if (document.querySelector("[data-bell]").open) markRead();
  else if (shown + notes.length > room) digest(notes);
  else for (const note of notes) toast({ ...note, url: jobUrl(note.job_id) });
  if (document.hidden) tellBrowser(notes);
}

function summary(notes) {
  const by = new Map();
  for (const note of notes) by.set(note.status, (by.get(note.status) ?? 0) + 1);
  const message = [...by].map(([status, number]) => `${number} ${status}`).join(", ");
  const title = notes.length === 1 ? notes[0].title : `${notes.length} jobs ended`;
  return { title, message, status: by.has("failed") ? "failed" : "completed" };
}

function tellBrowser(notes) {
  if (!("Notification" in window) || Notification.permission !== "granted") return;
  const { title, message } = notes.length === 1 ? notes[0] : summary(notes);
  const shown = new Notification(title, { body: message, tag: `fairq-${notes.at(-1).seq}` });
  shown.addEventListener("click", () => window.focus());
}

function list(note) {
  const holder = document.querySelector("[data-bell-list]");
  if (holder.querySelector(`[data-seq="${note.seq}"]`)) return;
  holder.querySelector("[data-bell-none]")?.remove();
  const item = document.createElement("a");
  item.className = "bell-item";
  item.href = jobUrl(note.job_id);
  item.dataset.status = note.status;
  item.dataset.seq = note.seq;
  item.dataset.key = `note-${note.seq}`;
  const title = document.createElement("strong");
  title.textContent = note.title;
  const more = document.createElement("span");
  const time = document.createElement("time");
  time.dateTime = note.at;
  time.dataset.time = "relative";
  more.append(note.message ? `${note.message} · ` : "", time);
  item.append(icon(note.status), title, more);
  holder.prepend(item);
  while (holder.children.length > LISTED) holder.lastElementChild.remove();
  clock.show(holder);
}

function newest() {
  return Math.max(0, ...[...document.querySelectorAll("[data-bell-list] [data-seq]")].map((one) => Number(one.dataset.seq)));
}

function count() {
  const read = Number(recall(READ) ?? 0);
  const items = [...document.querySelectorAll("[data-bell-list] [data-seq]")];
  const unread = items.filter((one) => Number(one.dataset.seq) > read).length;
  const badge = document.querySelector("[data-bell-count]");
  badge.hidden = unread === 0;
  badge.textContent = unread < LISTED ? String(unread) : `${LISTED}+`;
}

function markRead() {
  keep(READ, String(newest()));
  count();
}

function offerBrowser() {
  const offer = document.querySelector("[data-bell-allow]");
  if (!("Notification" in window) || Notification.permission !== "default" || !window.isSecureContext) return;
  offer.hidden = false;
  offer.querySelector("button").addEventListener("click", async () => {
    await Notification.requestPermission();
    offer.hidden = true;
  });
}

export function start() {
  const bell = document.querySelector("[data-bell]");
  for (const item of bell.querySelectorAll("[data-seq]")) told.add(Number(item.dataset.seq));
  if (recall(READ) === null) markRead();
  count();
  offerBrowser();
  bell.addEventListener("toggle", () => bell.open && markRead());
  document.addEventListener("click", (event) => {
    if (bell.open && !bell.contains(event.target)) bell.open = false;
  });
  bell.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    bell.open = false;
    bell.querySelector("summary").focus();
  });
  onRefresh(count);
  window.addEventListener("storage", count);
  target.addEventListener("notification", ({ detail }) => take(detail));
}
