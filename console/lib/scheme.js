// Runs before the page is drawn, as a classic script: a page must not flash in the other scheme.
"use strict";
{
  let scheme = null;
  try {
    scheme = localStorage.getItem("dalston.scheme");
  } catch {
    // Storage may be refused; the system's scheme is used.
  }
  if (scheme === "light" || scheme === "dark") document.documentElement.dataset.scheme = scheme;
}
