// Keys of every page: next, previous, expand, raw text, find. What they move over has the attribute `data-item`.
"use strict";
(() => {
  const items = () => [...document.querySelectorAll("[data-item]")].filter((item) => item.offsetParent !== null);
  let here = null;

  function go(step) {
    const all = items();
    if (!all.length) return;
    const focused = document.activeElement && document.activeElement.closest("[data-item]");
    const at = all.indexOf(focused || here);
    const next = all[Math.min(all.length - 1, Math.max(0, at < 0 ? 0 : at + step))];
    if (here) here.classList.remove("here");
    here = next;
    here.classList.add("here");
    here.scrollIntoView({ block: "nearest", inline: "nearest" });
    if (here.tabIndex >= 0) here.focus({ preventScroll: true });
    else here.querySelector("a").focus({ preventScroll: true });
  }

  function follow(rel) {
    const link = document.querySelector(`a[rel=${rel}]`);
    if (link) link.click();
  }

  function open() {
    const target = here && (here.matches(".sentence") ? here : here.querySelector("a"));
    if (target) target.click();
    return Boolean(target);
  }

  function expand() {
    const folds = [...(here && here.querySelector("details") ? here : document).querySelectorAll("main details, article details")];
    const own = here ? folds.filter((fold) => here.contains(fold)) : folds;
    const some = own.length ? own : folds;
    const opened = some.some((fold) => !fold.open);
    some.forEach((fold) => { fold.open = opened; });
  }

  const ACTIONS = {
    j: () => go(1),
    k: () => go(-1),
    n: () => follow("next"),
    p: () => follow("prev"),
    u: () => follow("up"),
    e: expand,
    r: () => document.body.classList.toggle("raw"),
    "/": () => document.getElementById("find").focus(),
    "?": () => document.getElementById("help").showModal(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea, dialog")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.key === "Enter" && !event.target.closest("a, button, summary")) {
      if (open()) event.preventDefault();
    } else if (Object.hasOwn(ACTIONS, event.key)) {
      event.preventDefault();
      ACTIONS[event.key]();
    }
  });
  document.addEventListener("focusin", (event) => {
    const item = event.target.closest("[data-item]");
    if (item && item !== here) {
      if (here) here.classList.remove("here");
      here = item;
      here.classList.add("here");
    }
  });
  document.getElementById("help-button").addEventListener("click", ACTIONS["?"]);
})();
