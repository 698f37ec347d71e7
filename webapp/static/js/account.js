// A reader's account: what is used of its limits follows their jobs.

import { isNews, target } from "./live.js";
import * as refresh from "./refresh.js";

export const keys = {};

export function start() {
  target.addEventListener("job", ({ detail: change }) => {
    if (isNews(change) && change.status) refresh.request();
  });
}
