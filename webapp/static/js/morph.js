// Turns one tree of elements into another and touches only what differs, so that focus, selection,
// scrolling and what is unfolded stay as they are.

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.dataset?.key || node.id || null : null);

function isSame(one, other) {
  return one.nodeType === other.nodeType && one.nodeName === other.nodeName && keyOf(one) === keyOf(other);
}

function morphAttributes(old, wanted) {
  for (const { name } of [...old.attributes]) {
    if (name !== "open" && !wanted.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}

function morphChildren(old, wanted, arrived) {
  const keyed = new Map();
  for (const child of old.childNodes) {
    const key = keyOf(child);
    if (key) keyed.set(key, child);
  }
  let next = old.firstChild;
  for (const child of [...wanted.childNodes]) {
    const key = keyOf(child);
    const known = key ? keyed.get(key) : next && isSame(next, child) ? next : null;
    if (known && isSame(known, child)) {
      if (known === next) next = next.nextSibling;
      else old.insertBefore(known, next);
      morph(known, child, arrived);
    } else {
      const fresh = document.importNode(child, true);
      old.insertBefore(fresh, next);
      if (fresh.dataset?.key) arrived.push(fresh);
    }
  }
  while (next) {
    const gone = next;
    next = next.nextSibling;
    gone.remove();
  }
}

/** Make *old* look like *wanted*. Elements marked data-keep are left alone. */
export function morph(old, wanted, arrived = []) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== wanted.nodeValue) old.nodeValue = wanted.nodeValue;
    return arrived;
  }
  if ("keep" in old.dataset) return arrived;
  morphAttributes(old, wanted);
  morphChildren(old, wanted, arrived);
  return arrived;
}
