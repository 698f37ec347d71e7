// Shows the OpenAPI document. A change made from here with the session needs its CSRF token.
"use strict";

const place = document.getElementById("docs");
const token = document.querySelector('meta[name="csrf-token"]').content;
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function followScheme() {
  document.documentElement.classList.toggle("dark-mode", dark.matches);
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
