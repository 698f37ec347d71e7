// Shows the OpenAPI document. A change made from here with the session needs its CSRF token.
"use strict";

const place = document.getElementById("docs");
const token = document.querySelector('meta[name="csrf-token"]').content;
const dark = window.matchMedia("(prefers-color-scheme: dark)");

/** Be dark if the reader has chosen that, or has left it to a system that is. */
function followScheme() {
  const { classList, dataset } = document.documentElement;
  classList.toggle("dark-mode", dataset.theme === "system" ? dark.matches : dataset.theme === "dark");
}

dark.addEventListener("change", followScheme);
followScheme();

window.SwaggerUIBundle({
  domNode: place,
  url: place.dataset.document,
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  requestInterceptor(request) {
    if (!request.headers.Authorization) {
      request.headers["X-CSRFToken"] = token;
    }
    return request;
  },
});
