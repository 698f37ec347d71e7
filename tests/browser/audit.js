// What is wrong with the page, as sentences: names, references, headings, width and contrast.
() => {
  const problems = new Set();
  const each = (selector, look) => document.querySelectorAll(selector).forEach(look);
  const start = (element) => element.outerHTML.slice(0, 100);

  const hasName = (element) =>
    element.labels?.length ||
    element.getAttribute("aria-label") ||
    element.getAttribute("aria-labelledby") ||
    element.title ||
    element.textContent.trim();
  each("input:not([type=hidden]), select, textarea, button, a[href], summary", (element) => {
    if (element.checkVisibility() && !hasName(element)) problems.add(`no name: ${start(element)}`);
  });
  each("img:not([alt])", (element) => problems.add(`no alternative text: ${start(element)}`));
  each("[style]", (element) => problems.add(`styled in place: ${start(element)}`));

  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) problems.add(`twice: #${id}`);
  for (const attribute of ["aria-labelledby", "aria-describedby", "for"]) {
    each(`[${attribute}]`, (element) => {
      for (const id of element.getAttribute(attribute).split(" ")) {
        if (!document.getElementById(id)) problems.add(`${attribute} of nothing: #${id}`);
      }
    });
  }
  for (const one of ["h1", "main"]) {
    const number = document.querySelectorAll(one).length;
    if (number !== 1) problems.add(`${number} of ${one}`);
  }
  if (!document.documentElement.lang) problems.add("no language");

  const { scrollWidth, clientWidth } = document.documentElement;
  if (scrollWidth > clientWidth) problems.add(`${scrollWidth - clientWidth} pixels too wide`);

  // Colours are painted and read back, so that any way of writing them is understood.
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const paint = (colour, under) => {
    canvas.fillStyle = `rgb(${under.join(" ")})`;
    canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const WEIGHTS = [0.2126, 0.7152, 0.0722];
  const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const luminance = (colour) =>
    colour.reduce((sum, part, place) => sum + WEIGHTS[place] * linear(part / 255), 0);
  const backgroundOf = (element) => {
    const chain = [];
    for (let here = element; here; here = here.parentElement) {
      chain.unshift(getComputedStyle(here).backgroundColor);
    }
    return chain.reduce((under, colour) => paint(colour, under), [255, 255, 255]);
  };
  const LEAST_CONTRAST = 4.5;
  const ignored = ".visually-hidden, .skip, .arrived, [disabled], svg";
  each("body *", (element) => {
    const nodes = [...element.childNodes];
    const hasText = nodes.some((node) => node.nodeType === 3 && node.nodeValue.trim());
    if (!hasText || !element.checkVisibility() || element.closest(ignored)) return;
    const under = backgroundOf(element);
    const over = luminance(paint(getComputedStyle(element).color, under));
    const [high, low] = [over, luminance(under)].sort((one, other) => other - one);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < LEAST_CONTRAST) {
      const what = `${element.className} ${element.textContent.trim().slice(0, 30)}`;
      problems.add(`contrast ${contrast.toFixed(2)}: ${what}`);
    }
  });
  return [...problems];
}
