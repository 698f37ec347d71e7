// Times as the reader sees them: in their zone, and ticking. Durations read as on the server.

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86400;
const FINE_BELOW = 10;

let offset = 0;

/** Take the server's clock as the true one; the reader's may be wrong. */
export function synchronise(serverTime) {
  const at = Date.parse(serverTime);
  if (!Number.isNaN(at)) offset = at - Date.now();
}

export function now() {
  return Date.now() + offset;
}

const two = (number) => String(number).padStart(2, "0");

export function duration(seconds, whole = false) {
  const value = Math.max(seconds, 0);
  const full = Math.floor(value);
  if (value < FINE_BELOW) return whole ? `${full} s` : `${value.toFixed(1)} s`;
  if (value < MINUTE) return `${full} s`;
  if (value < HOUR) return `${Math.floor(value / MINUTE)} min ${two(full % MINUTE)} s`;
  if (value < DAY) return `${Math.floor(value / HOUR)} h ${two(Math.floor((full % HOUR) / MINUTE))} min`;
  return `${Math.floor(value / DAY)} d ${Math.floor((full % DAY) / HOUR)} h`;
}

function rough(seconds) {
  if (seconds < MINUTE) return `${Math.floor(seconds)} s`;
  if (seconds < HOUR) return `${Math.floor(seconds / MINUTE)} min`;
  if (seconds < DAY) return `${Math.floor(seconds / HOUR)} h`;
  return `${Math.floor(seconds / DAY)} d`;
}

export function relative(instant) {
  const seconds = (now() - instant) / 1000;
  if (Math.abs(seconds) < FINE_BELOW) return seconds >= 0 ? "just now" : "in a moment";
  return seconds > 0 ? `${rough(seconds)} ago` : `in ${rough(-seconds)}`;
}

const CLOCK = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

const STYLES = {
  relative,
  clock: (instant) => CLOCK.format(instant),
  full: (instant) => FULL.format(instant),
};

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Show every time under *root* as it is now. */
export function show(root = document) {
  for (const element of root.querySelectorAll("time[data-time]")) {
    const instant = Date.parse(element.dateTime);
    setText(element, STYLES[element.dataset.time](instant));
    const title = FULL.format(instant);
    if (element.title !== title) element.title = title;
  }
  tick(root);
}

function tick(root) {
  for (const element of root.querySelectorAll("[data-tick]")) {
    setText(element, duration((now() - Date.parse(element.dataset.tick)) / 1000, true));
  }
}

/** Keep times true while somebody looks. */
export function start() {
  const meta = document.querySelector('meta[name="server-time"]');
  if (meta) synchronise(meta.content);
  show();
  setInterval(() => {
    if (!document.hidden) show();
  }, 1000);
}
