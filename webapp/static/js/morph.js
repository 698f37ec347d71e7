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
  // Moving an element costs its focus and its scrolling, so whatever goes makes way for what stays.
  const kept = new Set([...wanted.childNodes].map(keyOf));
  const keyed = new Map();
  for (const child of [...old.childNodes]) {
    const key = keyOf(child);
    if (key && kept.has(key)) keyed.set(key, child);
    else if (key) child.remove();
  }
  let next = old.firstChild;
  for (const child of [...wanted.childNodes]) {
    const key = keyOf(child);
    const known = key ? keyed.get(key) : next && isSame(next, child) ? next : null;
    if (known && isSame(known, child)) {
      while (next && next !== known && !keyOf(next)) next = drop(next);
      if (known === next) next = next.nextSibling;
      else old.insertBefore(known, next);
      morph(known, child, arrived);
    } else {
      const fresh = document.importNode(child, true);
      old.insertBefore(fresh, next);
      if (fresh.dataset?.key) arrived.push(fresh);
    }
  }
  while (next) next = drop(next);
}

/** Remove *node*; returns what follows it. */
function drop(node) {
  const following = node.nextSibling;
  node.remove();
  return following;
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
