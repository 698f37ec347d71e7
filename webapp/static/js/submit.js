// The submit form: one payload in two ways of writing it, problems in the JSON as it is typed, times
// in the reader's zone.

import * as json from "./json.js";

const PREFIX = "payload.";
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
const WRITE = {
  json: (value) => JSON.stringify(value),
  lines: (value) => (Array.isArray(value) ? value.join("\n") : String(value)),
};
const UNSAID = "The form has no place for all of this, so what is sent stays what is written here.";

const controlsOf = (form) => [...form.querySelectorAll(`[name^="${PREFIX}"]`)];
const nameOf = (control) => control.name.slice(PREFIX.length);

/** Return the payload that the fields say. */
function readFields(form) {
  const payload = {};
  for (const control of controlsOf(form)) {
    if (control.type === "checkbox") payload[nameOf(control)] = control.checked;
    else if (control.value.trim()) {
      payload[nameOf(control)] = (READ[control.dataset.kind] ?? String)(control.value);
    }
  }
  return payload;
}

/** Let the fields say *payload*, or leave them as they are. Returns whether they can say all of it. */
function fillFields(form, payload) {
  const before = controlsOf(form).map(({ value, checked }) => ({ value, checked }));
  const wanted = { ...payload };
  for (const control of controlsOf(form)) {
    const name = nameOf(control);
    if (control.type === "checkbox") {
      if (!(name in wanted)) wanted[name] = control.dataset.default === "true";
      control.checked = wanted[name] === true;
    } else {
      control.value = name in wanted ? (WRITE[control.dataset.kind] ?? String)(wanted[name]) : "";
    }
  }
  if (isSame(readFields(form), wanted)) return true;
  controlsOf(form).forEach((control, place) => Object.assign(control, before[place]));
  return false;
}

function isSame(one, other) {
  const names = new Set([...Object.keys(one), ...Object.keys(other)]);
  return [...names].every((name) => JSON.stringify(one[name]) === JSON.stringify(other[name]));
}

/** Carry the payload over when its writer changes the way of writing it. */
function setUpModes(form, area) {
  const byHand = form.querySelector('[name="mode"][value="json"]');
  let isEdited = byHand.checked;
  area.addEventListener("input", () => (isEdited = true));
  form.addEventListener("change", ({ target: control }) => {
    if (control.name !== "mode") return;
    if (control === byHand) {
      if (!isEdited) area.value = JSON.stringify(readFields(form), null, 2);
      json.check(area);
    } else if (isEdited) {
      const payload = json.check(area);
      if (payload && fillFields(form, payload)) {
        isEdited = false;
        return;
      }
      byHand.checked = true;
      if (payload) json.tell(UNSAID);
    }
  });
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
  setUpModes(form, area);
  showZone(form);
  form.querySelector("[data-errors], [data-tried]")?.focus();
}
