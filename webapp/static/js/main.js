// Where the scripts of a page start. Everything here is a comfort: pages work without.

import * as account from "./account.js";
import * as clock from "./clock.js";
import * as edit from "./edit.js";
import { confirmed, send } from "./elements.js";
import * as job from "./job.js";
import * as jobs from "./jobs.js";
import { keep, recall } from "./kept.js";
import * as letters from "./letters.js";
import * as live from "./live.js";
import * as notify from "./notify.js";
import * as refresh from "./refresh.js";
import * as schedules from "./schedules.js";
import * as submit from "./submit.js";
import * as workers from "./workers.js";

const PAGES = { account, edit, job, jobs, letters, schedules, submit, workers };
const YEAR_SECONDS = 31536000;
const SENT_FOR = 5000;
const KEYS = "keys"; // whether single keys do anything

const page = PAGES[document.body.dataset.page];

function setUpTheme() {
  const form = document.querySelector("[data-themes]");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const chosen = event.submitter.value;
    document.documentElement.dataset.theme = chosen;
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `theme=${chosen}; Path=/; Max-Age=${YEAR_SECONDS}; SameSite=Lax${secure}`;
    for (const button of form.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.value === chosen));
    }
  });
}

const underway = new WeakSet();

/** Note whether a form is being sent. Its buttons keep the focus, and do nothing meanwhile. */
function setUnderway(form, isUnderway) {
  if (isUnderway) underway.add(form);
  else underway.delete(form);
  for (const button of form.querySelectorAll("button")) button.ariaDisabled = isUnderway ? "true" : null;
}

/** Ask first where that is wanted, and send a form once, however often its button is pressed. */
function setUpForms() {
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (form.method !== "post" || event.defaultPrevented) return;
    const wanted = { ...form.dataset, url: form.getAttribute("action") };
    if (underway.has(form) || wanted.act || wanted.confirm) event.preventDefault();
    if (underway.has(form)) return;
    setUnderway(form, true);
    if (wanted.confirm && !(await confirmed(wanted.confirm))) setUnderway(form, false);
    else if (wanted.act) await act(form, wanted);
    else leave(form, wanted);
  });
}

/** Let the answer of a form take the place of the page; if it never comes, the form is free again. */
function leave(form, { confirm }) {
  if (confirm) form.submit();
  setTimeout(() => setUnderway(form, false), SENT_FOR);
}

/** Ask the JSON side for what a form would do, and stay on the page. */
async function act(form, { act: method, url, failed, done }) {
  const { ok, problem } = await send(method, url);
  setUnderway(form, false);
  if (!ok) notify.toast({ title: failed, message: problem, status: "failed" });
  else if (done) notify.toast({ title: done });
  await refresh.now();
}

function setUpCopying() {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const source = document.querySelector(button.dataset.copy);
    const done = await copy(source);
    const label = button.lastChild;
    const before = label.textContent;
    label.textContent = done ? "Copied" : "Select and copy it";
    setTimeout(() => (label.textContent = before), 2000);
  });
}

async function copy(source) {
  try {
    await navigator.clipboard.writeText(source.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(source);
    return false;
  }
}

function setUpKeys() {
  const dialog = document.querySelector("[data-keys]");
  const keys = {
    c: () => document.querySelector('[data-go="submit"]')?.click(),
    g: () => document.querySelector('[data-go="jobs"]').click(),
    "?": () => dialog.showModal(),
    ...page?.keys,
  };
  const areOn = document.querySelector("[data-keys-on]");
  areOn.checked = recall(KEYS) !== "off";
  areOn.addEventListener("change", () => keep(KEYS, areOn.checked ? "on" : "off"));
  document.querySelector("[data-open-keys]").addEventListener("click", keys["?"]);
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select, [contenteditable]");
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (typing) {
      if (event.key === "Escape") typing.blur();
      return;
    }
    if (!areOn.checked || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
}

for (const element of document.querySelectorAll("[data-with-scripts]")) element.hidden = false;
clock.start();
setUpTheme();
setUpForms();
setUpCopying();
setUpKeys();
notify.start();
page?.start();
live.start();
