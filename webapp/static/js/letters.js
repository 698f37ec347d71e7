// The Dead letters page: loaded again when a job fails for good, or when one of them runs again.

import * as list from "./list.js";
import { isNews, target } from "./live.js";
import * as refresh from "./refresh.js";

const isShown = ({ owner, job_id: jobId }) =>
  document.querySelector(`[data-row][data-key="${CSS.escape(`${owner}/${jobId}`)}"]`);

function changed({ detail: change }) {
  if (!isNews(change)) return;
  if (change.status === "failed" || change.verb === "run_again" || isShown(change)) refresh.request();
}

export const keys = list.keys;

export function start() {
  target.addEventListener("job", changed);
  list.start();
}
