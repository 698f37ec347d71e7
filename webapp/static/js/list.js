// What pages with a list share: a filter that follows its choices, and rows walked by keyboard.

function focusRow(step) {
  const links = [...document.querySelectorAll("[data-row-link]")];
  if (links.length === 0) return;
  const here = links.findIndex((link) => link.closest("[data-row]").contains(document.activeElement));
  const next = here === -1 ? (step > 0 ? 0 : links.length - 1) : here + step;
  links[Math.min(Math.max(next, 0), links.length - 1)].focus();
}

export const keys = {
  j: () => focusRow(1),
  k: () => focusRow(-1),
  "/": () => {
    const box = document.querySelector("[data-query]");
    box?.focus();
    box?.select();
  },
};

export function start() {
  for (const select of document.querySelectorAll("[data-filter] select")) {
    select.addEventListener("change", () => select.form.requestSubmit());
  }
  document.querySelector("[data-filter]")?.addEventListener("formdata", ({ formData }) => {
    for (const [name, value] of [...formData]) if (!value) formData.delete(name);
  });
}
