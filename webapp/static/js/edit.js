// A payload edited before its job is retried.

import * as json from "./json.js";

export const keys = {};

export function start() {
  const form = document.querySelector("[data-payload-form]");
  json.watch(form.querySelector("[data-json]"));
  form.querySelector("[data-errors]")?.focus();
}
