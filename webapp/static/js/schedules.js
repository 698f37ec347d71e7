// The pages of schedules: loaded again when one of the schedules shown makes a job, when one moves,
// and a little after each tick shown, which may have been skipped or refused.

import * as clock from "./clock.js";
import * as json from "./json.js";
import * as list from "./list.js";
import { isNews, target } from "./live.js";
import * as refresh from "./refresh.js";

/** Tell whether a job is named as those of a schedule on this page are. */
function isOfOneShown({ owner, job_id: jobId }) {
  const schedule = jobId.slice(0, jobId.lastIndexOf("@"));
  return document.querySelector(`[data-row][data-key="${CSS.escape(`${owner}/${schedule}`)}"]`);
}

const LATE = 3000;
const LONGEST = 86400000; // what a timer can wait for is bounded

let timer = null;

function watchTicks() {
  const ticks = [...document.querySelectorAll("[data-next]")].map((row) => Date.parse(row.dataset.next));
  clearTimeout(timer);
  if (ticks.length === 0) return;
  const left = Math.max(Math.min(...ticks) - clock.now(), 0) + LATE;
  timer = setTimeout(refresh.request, Math.min(left, LONGEST));
}

export const keys = list.keys;

export function start() {
  target.addEventListener("job", ({ detail: change }) => {
    if (isNews(change) && isOfOneShown(change)) refresh.request();
  });
  refresh.onRefresh(watchTicks);
  watchTicks();
  list.start();
  const form = document.querySelector("[data-schedule-form]");
  if (!form) return;
  json.watch(form.querySelector("[data-json]"));
  form.querySelector("[data-errors]")?.focus();
}
