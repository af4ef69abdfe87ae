// Thresholds on the page of a response: sentences are typed anew from their sums, as `rules/scores.py` does it.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("sums").textContent);
  const form = document.getElementById("thresholds");
  if (!form) return;
  const [slider, value, measure, per] = ["threshold", "threshold-value", "measure", "per"].map((id) => document.getElementById(id));
  const spans = new Map([...document.querySelectorAll("#text .sentence")].map((span) => [Number(span.dataset.index), span]));
  const MOST = { probability: 1, log: 5 };

  function means([teacherSum, teacherTokens, studentSum, studentTokens, characters], log) {
    if (!(teacherTokens > 0 && studentTokens > 0)) return null;
    const perToken = per.value === "token";
    const both = [teacherSum / (perToken ? teacherTokens : characters), studentSum / (perToken ? studentTokens : characters)];
    return log ? both : both.map(Math.exp);
  }

  function kindOf(sums) {
    const both = means(sums, measure.value === "log");
    if (both === null) return "untyped";
    const gap = both[0] - both[1];
    return gap > Number(slider.value) ? "teacher" : gap < -Number(slider.value) ? "student" : "close";
  }

  function show() {
    const counts = { teacher: 0, student: 0, close: 0, untyped: 0 };
    const rows = data.sums.map((sums, index) => {
      const kind = kindOf(sums);
      counts[kind] += 1;
      const span = spans.get(index);
      if (span) {
        span.classList.remove("teacher", "student", "close", "untyped");
        span.className = `sentence ${kind}${span.classList.contains("here") ? " here" : ""}`;
      }
      const both = means(sums, false);
      return both && { sentence: index + 1, teacher: both[0], student: both[1], kind };
    });
    for (const [kind, count] of Object.entries(counts)) {
      for (const cell of document.querySelectorAll(`[data-count=${kind}]`)) cell.textContent = count;
    }
    const typed = data.sums.length - counts.untyped;
    document.getElementById("teacher-share").textContent = typed ? `${(100 * counts.teacher / typed).toFixed(1)} %` : "–";
    value.textContent = Number(Number(slider.value).toPrecision(6));
    charts.curve(document.querySelector("[data-chart=curve]"), rows.filter(Boolean));
  }

  // A range input clamps its value: there has to be room for the recipe's threshold.
  function makeRoom() {
    const own = measure.value === data.divergence.measure ? data.divergence.threshold : 0;
    slider.max = Math.max(MOST[measure.value], own);
  }

  function reset() {
    measure.value = data.divergence.measure;
    per.value = data.divergence.per;
    makeRoom();
    slider.value = data.divergence.threshold;
    show();
  }

  slider.addEventListener("input", show);
  per.addEventListener("change", show);
  measure.addEventListener("change", () => { makeRoom(); show(); });
  document.getElementById("threshold-reset").addEventListener("click", reset);
  form.addEventListener("submit", (event) => event.preventDefault());
  reset();
})();
