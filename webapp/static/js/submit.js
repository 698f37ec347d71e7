// The submit form: problems in the JSON as it is typed, times in the reader's zone.

import * as json from "./json.js";

const READ = {
  number: (text) => (Number.isNaN(Number(text)) ? text : Number(text)),
  json: (text) => {
    try {
      return JSON.parse(text);
    } catch {
      return text;
    }
  },
  lines: (text) => text.split("\n").map((line) => line.trim()).filter(Boolean),
};

/** Write what the fields say as JSON, for who changes to writing it by hand. */
function fieldsToJson(form, area) {
  const payload = {};
  for (const control of form.querySelectorAll('[name^="payload."]')) {
    const name = control.name.slice("payload.".length);
    if (control.type === "checkbox") payload[name] = control.checked;
    else if (control.value.trim()) payload[name] = (READ[control.dataset.kind] ?? String)(control.value);
  }
  area.value = JSON.stringify(payload, null, 2);
}

function showZone(form) {
  const local = form.querySelector("[data-local-time]");
  const zone = form.querySelector("[data-zone]");
  const note = () => {
    const chosen = local.value ? new Date(local.value) : new Date();
    zone.value = String(chosen.getTimezoneOffset());
  };
  form.querySelector("[data-zone-name]").textContent = `In your zone, ${Intl.DateTimeFormat().resolvedOptions().timeZone}`;
  local.addEventListener("change", note);
  note();
}

export const keys = {};

export function start() {
  const form = document.querySelector("[data-submit]");
  if (!form) return;
  const area = form.querySelector("[data-json]");
  json.watch(area);
  form.addEventListener("change", ({ target: control }) => {
    if (control.name !== "mode" || control.value !== "json") return;
    fieldsToJson(form, area);
    json.check(area);
  });
  showZone(form);
  form.querySelector("[data-errors]")?.focus();
}
