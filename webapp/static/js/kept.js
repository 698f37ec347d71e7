// What a browser remembers for its reader, as far as it remembers anything.

const keyOf = (name) => `fairq:${document.body.dataset.user}:${name}`;

function storage() {
  try {
    return window.localStorage;
  } catch {
    return null;
  }
}

/** Return what was kept under *name*, or null. */
export function recall(name) {
  return storage()?.getItem(keyOf(name)) ?? null;
}

export function keep(name, value) {
  storage()?.setItem(keyOf(name), value);
}
