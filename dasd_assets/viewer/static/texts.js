// Texts: formulas are drawn from their source, and a sentence shows what is known of it. Text is only ever set as text.
"use strict";
(() => {
  function draw(element) {
    const source = document.createElement("span");
    source.className = "source";
    source.textContent = element.textContent;
    const drawing = document.createElement("span");
    drawing.className = "drawing";
    try {
      katex.render(element.textContent, drawing, {
        displayMode: element.matches(".md-display"),
        output: "mathml", // drawn by the browser: no fonts, no style sheet
        throwOnError: true,
        trust: false, // no links, no pictures, no HTML
        maxExpand: 200,
        maxSize: 20,
      });
    } catch {
      // No formula after all: it stays as it was written, with its signs.
      for (const sign of [element.previousElementSibling, element.nextElementSibling]) {
        if (sign && sign.matches(".md-mark")) sign.classList.remove("md-mark");
      }
      element.classList.remove("md-formula", "md-display");
      return;
    }
    element.replaceChildren(source, drawing);
    element.classList.add("drawn");
  }
  document.querySelectorAll(".md-formula, .md-display").forEach(draw);

  const inspector = document.getElementById("inspector");
  const text = document.getElementById("text");
  if (!inspector || !text) return;

  let shown = null;
  let pinned = false;

  function line(list, name, value) {
    const term = document.createElement("dt");
    const said = document.createElement("dd");
    term.textContent = name;
    said.textContent = value;
    list.append(term, said);
  }

  function inspect(sentence) {
    if (sentence === shown) return;
    shown = sentence;
    const title = document.createElement("h2");
    title.textContent = `Sentence ${Number(sentence.dataset.index) + 1}`;
    const list = document.createElement("dl");
    list.className = "facts";
    line(list, "type", sentence.classList[1]);
    for (const model of ["teacher", "student", "distilled"]) {
      if (model in sentence.dataset) line(list, model, sentence.dataset[model]);
    }
    const hint = document.createElement("p");
    hint.className = "muted";
    hint.textContent = text.dataset.tokens ? "Enter or click: its tokens." : "";
    inspector.replaceChildren(title, list, hint);
  }

  const sentenceOf = (event) => event.target.closest(".sentence[data-index]");
  text.addEventListener("mouseover", (event) => {
    const sentence = sentenceOf(event);
    if (sentence && !pinned) inspect(sentence);
  });
  text.addEventListener("focusin", (event) => {
    const sentence = sentenceOf(event);
    if (sentence) {
      pinned = false;
      inspect(sentence);
    }
  });
  text.addEventListener("click", (event) => {
    const sentence = sentenceOf(event);
    if (!sentence) return;
    inspect(sentence);
    if (!text.dataset.tokens) return;
    pinned = true;
    htmx.ajax("GET", text.dataset.tokens + sentence.dataset.index, { target: "#inspector", swap: "innerHTML" });
  });
})();
