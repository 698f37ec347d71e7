// Where the scripts of a page start. Everything here is a comfort: pages work without.

import * as clock from "./clock.js";
import * as edit from "./edit.js";
import { confirmed, send } from "./elements.js";
import * as job from "./job.js";
import * as jobs from "./jobs.js";
import * as letters from "./letters.js";
import * as live from "./live.js";
import * as notify from "./notify.js";
import * as refresh from "./refresh.js";
import * as schedules from "./schedules.js";
import * as submit from "./submit.js";
import * as workers from "./workers.js";

const PAGES = { edit, job, jobs, letters, schedules, submit, workers };
const YEAR_SECONDS = 31536000;

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

function setUpForms() {
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (form.matches("[data-act]")) {
      event.preventDefault();
      if (form.dataset.confirm && !(await confirmed(form.dataset.confirm))) return;
      await act(form);
    } else if (form.dataset.confirm && !form.dataset.sure) {
      event.preventDefault();
      if (!(await confirmed(form.dataset.confirm))) return;
      form.dataset.sure = "yes";
      form.requestSubmit();
    }
  });
}

/** Ask the JSON side for what a form would do, and stay on the page. */
async function act(form) {
  const button = form.querySelector("button");
  button.disabled = true;
  const { ok, problem } = await send(form.dataset.act, form.action);
  button.disabled = false;
  if (!ok) notify.toast({ title: form.dataset.failed, message: problem, status: "failed" });
  else if (form.dataset.done) notify.toast({ title: form.dataset.done });
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
  document.querySelector("[data-open-keys]").addEventListener("click", keys["?"]);
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select, [contenteditable]");
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (typing) {
      if (event.key === "Escape") typing.blur();
      return;
    }
    if (!keys[event.key]) return;
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
