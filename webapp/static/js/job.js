// A job's page: its progress and log as they come, everything else by loading the page again.

import * as clock from "./clock.js";
import { jobUrl, setProgress, setStatus } from "./elements.js";
import { ask, isNews, target } from "./live.js";
import * as refresh from "./refresh.js";

const LINES_KEPT = 2000;

const page = () => document.getElementById("job");
const isThis = ({ job_id: jobId, owner }) => jobId === page().dataset.job && owner === page().dataset.owner;

function changed({ detail: change }) {
  if (!isThis(change)) {
    if (change.status && namesNeighbour(change)) refresh.request();
    return;
  }
  if (!isNews(change)) return;
  if (change.status) {
    setStatus(page().querySelector("[data-status-chip]"), change.status);
    refresh.request();
  }
  if (change.progress && page().dataset.status === "running") setProgress(page(), change.progress);
}

function namesNeighbour(change) {
  return [...document.querySelectorAll("[data-neighbour]")].some((one) => one.dataset.neighbour === change.job_id);
}

function queue({ detail }) {
  if (page().dataset.owner !== document.body.dataset.user) return;
  const running = detail.running.find((job) => job.job_id === page().dataset.job);
  if (running && page().dataset.status === "running") setProgress(page(), running.progress);
  const waiting = detail.waiting.find((job) => job.job_id === page().dataset.job);
  if (!waiting) return;
  const place = page().querySelector("[data-place]");
  if (place) place.textContent = `#${waiting.position.toLocaleString("en")}`;
  const words = page().querySelector("[data-waiting]");
  if (words) words.textContent = waiting.message;
}

function lineElement({ id, at, level, message }) {
  const line = document.createElement("div");
  line.className = "log-line";
  line.dataset.level = level.toLowerCase();
  line.dataset.key = id;
  const time = document.createElement("time");
  time.dateTime = at;
  time.dataset.time = "clock";
  const name = document.createElement("b");
  name.textContent = level;
  const text = document.createElement("span");
  text.textContent = message;
  line.append(time, name, text);
  return line;
}

/** Add lines that are not there yet, in the order of their ids. */
function addLines(lines) {
  const log = document.querySelector("[data-log]");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  for (const line of lines) {
    const id = Number(line.dataset.key);
    let before = log.lastElementChild;
    while (before?.dataset.key && Number(before.dataset.key) > id) before = before.previousElementSibling;
    if (before?.dataset.key && Number(before.dataset.key) === id) continue;
    if (before) before.after(line);
    else log.prepend(line);
    log.querySelector("[data-log-none]")?.remove();
  }
  while (log.childElementCount > LINES_KEPT) log.firstElementChild.remove();
  clock.show(log);
  const follows = document.querySelector("[data-log-follow]").checked;
  if (follows && atEnd) log.scrollTop = log.scrollHeight;
}

/** Take over the lines of a page that was loaded again, and say so where there may be more between. */
function catchUp(fresh) {
  const log = document.querySelector("[data-log]");
  const lines = [...fresh.querySelectorAll("[data-log] .log-line")];
  const isCut = lines.length >= Number(log.dataset.most) && log.querySelector(".log-line");
  const isKnown = lines.length && log.querySelector(`[data-key="${lines[0].dataset.key}"]`);
  if (isCut && !isKnown) addLines([gapBefore(lines[0])]);
  addLines(lines.map((line) => document.importNode(line, true)));
  const none = log.querySelector("[data-log-none]");
  if (none) none.textContent = fresh.querySelector("[data-log-none]").textContent;
}

/** Return the note that lines are missing; its key puts it right before *line*. */
function gapBefore(line) {
  const { job, owner } = page().dataset;
  const box = document.createElement("p");
  box.className = "log-gap";
  box.dataset.key = Number(line.dataset.key) - 0.5;
  const all = document.createElement("a");
  all.href = jobUrl(job, owner, "logs");
  all.textContent = "All of them as JSON";
  box.append("Lines are missing here. ", all);
  return box;
}

async function follow() {
  const { job, owner } = page().dataset;
  await ask("follow", { job_id: job, owner });
  refresh.request();
}

export const keys = {};

export function start() {
  target.addEventListener("job", changed);
  target.addEventListener("queue", queue);
  target.addEventListener("log", ({ detail }) => isThis(detail) && addLines(detail.lines.map(lineElement)));
  target.addEventListener("connected", follow);
  refresh.onRefresh(catchUp);
  const log = document.querySelector("[data-log]");
  log.scrollTop = log.scrollHeight;
  document.querySelector("[data-log-floor]").addEventListener("change", ({ target: floor }) => {
    log.dataset.floor = floor.value;
  });
  document.querySelector("[data-log-follow]").addEventListener("change", ({ target: box }) => {
    if (box.checked) log.scrollTop = log.scrollHeight;
  });
}
