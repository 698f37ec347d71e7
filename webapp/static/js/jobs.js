// The Jobs page: rows change in place at once, the rest follows by loading the page again.

import { progressBar, setProgress, setStatus } from "./elements.js";
import * as list from "./list.js";
import { isNews, target } from "./live.js";
import * as refresh from "./refresh.js";

const FINISHED = new Set(["completed", "failed", "cancelled"]);

const rowOf = (owner, jobId) =>
  document.querySelector(`[data-row][data-key="${CSS.escape(`${owner}/${jobId}`)}"]`);

function changed({ detail: change }) {
  if (!isNews(change)) return;
  const row = rowOf(change.owner, change.job_id);
  if (row && change.status) {
    showStatus(row, change.status);
  }
  if (row && change.progress && !FINISHED.has(row.dataset.status)) setProgress(row, change.progress);
  if (change.status) refresh.request();
}

/** Change a row to another status; what was said of the one before does not hold any more. */
function showStatus(row, status) {
  if (row.dataset.status === status) return;
  setStatus(row.querySelector("[data-status-chip]"), status);
  row.dataset.status = status;
  row.querySelector("[data-place]").replaceChildren();
  const said = document.createElement("span");
  said.className = "now-text muted";
  said.textContent = FINISHED.has(status) ? "Finished just now" : "";
  row.querySelector(".cell-progress").replaceChildren(status === "running" ? progressBar() : said);
}

function queue({ detail }) {
  if (document.hidden) return;
  const me = document.body.dataset.user;
  let behind = false;
  for (const job of detail.running) {
    const row = rowOf(me, job.job_id);
    if (row?.dataset.status === "running") setProgress(row, job.progress);
    else if (row) behind = true;
  }
  for (const job of detail.waiting) showPlace(rowOf(me, job.job_id), job);
  if (behind) refresh.request();
}

function showPlace(row, { position, message }) {
  if (!row) return;
  const place = row.querySelector("[data-place] span");
  if (place) place.textContent = `#${position.toLocaleString("en")}`;
  const words = row.querySelector("[data-waiting]");
  if (words && words.textContent !== message) {
    words.textContent = message;
    words.title = message;
  }
}

export const keys = list.keys;

export function start() {
  target.addEventListener("job", changed);
  target.addEventListener("queue", queue);
  list.start();
}
