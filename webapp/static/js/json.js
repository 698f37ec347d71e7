// JSON that a person writes: what is wrong with it is told as it is typed.

/** Tell what is wrong with the JSON object in *area*. Returns the object if nothing is. */
export function check(area) {
  let value = null;
  let problem = "";
  try {
    value = JSON.parse(area.value || "{}");
    if (value === null || Array.isArray(value) || typeof value !== "object") problem = "This has to be a JSON object: { … }.";
  } catch (error) {
    problem = `This is not JSON yet: ${error.message}.`;
  }
  area.setAttribute("aria-invalid", problem ? "true" : "false");
  tell(problem);
  return problem ? null : value;
}

/** Say *words* below what is written; nothing hides the line. */
export function tell(words) {
  const place = document.querySelector("[data-json-problem]");
  place.textContent = words;
  place.hidden = !words;
}

/** Check *area* whenever it changes. */
export function watch(area) {
  area.addEventListener("input", () => check(area));
}
