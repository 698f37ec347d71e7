// JSON that a person writes: what is wrong with it is told as it is typed.

/** Tell what is wrong with the JSON object in *area*. */
export function check(area) {
  let problem = "";
  try {
    const value = JSON.parse(area.value || "{}");
    if (value === null || Array.isArray(value) || typeof value !== "object") problem = "This has to be a JSON object: { … }.";
  } catch (error) {
    problem = `This is not JSON yet: ${error.message}.`;
  }
  area.setAttribute("aria-invalid", problem ? "true" : "false");
  const place = document.querySelector("[data-json-problem]");
  place.textContent = problem;
  place.hidden = !problem;
}

/** Check *area* whenever it changes. */
export function watch(area) {
  area.addEventListener("input", () => check(area));
}
