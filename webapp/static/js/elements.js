// Small pieces of page that scripts make, as the server's macros make them.

const SVG = "http://www.w3.org/2000/svg";
const SPRITE = new URL("../vendor/lucide-1.62.0/icons.svg", import.meta.url).pathname;

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("focusable", "false");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `${SPRITE}#${name}`);
  svg.append(use);
  return svg;
}

/** The address of a job; *owner* is named where the reader is somebody else. */
export function jobUrl(jobId, owner = null, action = "") {
  const path = `/jobs/${encodeURIComponent(jobId)}${action && `/${action}`}`;
  const other = owner && owner !== document.body.dataset.user;
  return other ? `${path}?owner=${encodeURIComponent(owner)}` : path;
}

/** Show another status in a chip: its word, icon and colour. */
export function setStatus(chip, status) {
  if (!chip || chip.dataset.status === status) return;
  chip.dataset.status = status;
  chip.querySelector("[data-status-word]").textContent = status;
  chip.querySelector("use").setAttribute("href", `${SPRITE}#${status}`);
}

/** A bar for work that has just begun. */
export function progressBar() {
  const line = document.createElement("span");
  line.className = "now-line";
  const bar = document.createElement("progress");
  bar.max = 1;
  bar.setAttribute("aria-label", "Progress");
  const percent = document.createElement("span");
  percent.className = "number now-percent";
  percent.dataset.percent = "";
  line.append(bar, percent);
  return line;
}

/** Show how far a job is in whatever of *root* shows progress. */
export function setProgress(root, { fraction, message }) {
  const bar = root.querySelector("progress");
  if (bar && fraction !== null && fraction !== undefined) {
    bar.value = fraction;
    bar.setAttribute("value", fraction);
    const percent = root.querySelector("[data-percent]");
    if (percent) percent.textContent = `${Math.floor(fraction * 100)}%`;
  }
  const words = root.querySelector("[data-progress-message]");
  if (words && message) words.textContent = message;
}

/** Send a change to the JSON side. Resolves to {ok, problem}. */
export async function send(method, url, body) {
  const token = document.querySelector('meta[name="csrf-token"]').content;
  const headers = { Accept: "application/json", "X-CSRFToken": token };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  try {
    const response = await fetch(url, { method, headers, body: body && JSON.stringify(body) });
    if (response.ok) return { ok: true };
    const problem = await response.json();
    return { ok: false, problem: problem.detail };
  } catch {
    return { ok: false, problem: "The server did not answer. Nothing was changed, as far as is known here." };
  }
}

/** Ask before something that cannot be undone. */
export function confirmed(question) {
  const dialog = document.querySelector("[data-confirm-dialog]");
  dialog.querySelector("[data-question]").textContent = question;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
