// The pages of schedules: loaded again when one of the schedules shown makes a job, or one moves.

import * as json from "./json.js";
import * as list from "./list.js";
import { isNews, target } from "./live.js";
import * as refresh from "./refresh.js";

/** Tell whether a job is named as those of a schedule on this page are. */
function isOfOneShown({ owner, job_id: jobId }) {
  const schedule = jobId.slice(0, jobId.lastIndexOf("@"));
  return document.querySelector(`[data-row][data-key="${CSS.escape(`${owner}/${schedule}`)}"]`);
}

export const keys = list.keys;

export function start() {
  target.addEventListener("job", ({ detail: change }) => {
    if (isNews(change) && isOfOneShown(change)) refresh.request();
  });
  list.start();
  const form = document.querySelector("[data-schedule-form]");
  if (!form) return;
  json.watch(form.querySelector("[data-json]"));
  form.querySelector("[data-errors]")?.focus();
}
