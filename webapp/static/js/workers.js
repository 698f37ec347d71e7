// The Workers page: loaded again while the fleet tells that it is alive.

import { ask, target } from "./live.js";
import * as refresh from "./refresh.js";

const PAUSE = 2000;

let last = 0;

export const keys = {};

export function start() {
  target.addEventListener("connected", () => ask("fleet"));
  target.addEventListener("fleet", () => {
    if (document.hidden || performance.now() - last < PAUSE) return;
    last = performance.now();
    refresh.request();
  });
}
