// The queue by keyboard: j and k move, Enter opens (the link has the focus, so the browser does that itself).
"use strict";
const links = [...document.querySelectorAll("table.queue td.reason a")];
const move = (by) => {
  if (!links.length) return;
  const at = links.indexOf(document.activeElement);
  const next = at < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(Math.max(at + by, 0), links.length - 1);
  links[next].focus();
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  if (event.key === "j") move(1);
  if (event.key === "k") move(-1);
});
