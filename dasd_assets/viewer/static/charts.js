// Charts, by Observable Plot, from the numbers that their places have as JSON. Plot's style sheet is named in the page's policy.
"use strict";
const charts = (() => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const shared = { className: "plot", marginTop: 14, marginBottom: 34, style: undefined };
  const TITLES = { score: "score", length: "length in tokens", share: "share of teacher sentences" };

  const widthOf = (names) => Math.min(340, 24 + 6.2 * Math.max(...names.map((name) => name.length))); // of labels, px

  function put(place, title, options) {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent = title;
    figure.append(caption, Plot.plot({ ...shared, ...options }));
    place.append(figure);
  }

  const range = ({ low, high }) => (low < high ? `${low.toPrecision(3)} to ${high.toPrecision(3)}` : low.toPrecision(3));
  const half = ({ low, high }) => (low < high ? 0 : 0.5); // what a bar of no width is wider by, to either side

  function histograms(place, data) {
    for (const { name, bars } of data) {
      if (!bars.length) continue;
      put(place, `${TITLES[name] || name}: right, wrong, not judged`, {
        width: 300, height: 150, marginLeft: 46,
        x: { label: null, ticks: 5 }, y: { label: null, grid: true, ticks: 4 },
        color: { domain: ["right", "wrong", "not judged"], range: [colour("teacher-line"), colour("student-line"), colour("close-line")] },
        marks: [
          Plot.rectY(bars, Plot.stackY({ x1: (bar) => bar.low - half(bar), x2: (bar) => bar.high + half(bar), y: "num", fill: "verdict", inset: 0.5, title: (bar) => `${bar.num} ${bar.verdict}, ${range(bar)}` })),
          Plot.ruleY([0]),
        ],
      });
    }
  }

  function curve(place, rows) {
    if (!place) return;
    place.replaceChildren();
    const width = Math.max(400, Math.min(1200, place.clientWidth || 800));
    put(place, "teacher (solid), student (dashed); a point is a sentence of that type", {
      width, height: 170, marginLeft: 36,
      x: { label: "sentence", domain: [1, Math.max(2, rows.length)], tickFormat: (n) => (Number.isInteger(n) ? String(n) : "") },
      y: { label: null, domain: [0, 1], grid: true, ticks: 4 },
      marks: [
        Plot.lineY(rows, { x: "sentence", y: "teacher", stroke: colour("teacher-line") }),
        Plot.lineY(rows, { x: "sentence", y: "student", stroke: colour("student-line"), strokeDasharray: "4 3" }),
        Plot.dot(rows.filter((row) => row.kind === "teacher"), { x: "sentence", y: "teacher", fill: colour("teacher-line"), r: 3.5 }),
        Plot.dot(rows.filter((row) => row.kind === "student"), { x: "sentence", y: "student", fill: colour("student-line"), r: 3.5, symbol: "square" }),
        Plot.tip(rows, Plot.pointerX({ x: "sentence", y: "teacher", title: (row) => `sentence ${row.sentence}, ${row.kind}\nteacher ${row.teacher.toFixed(3)}\nstudent ${row.student.toFixed(3)}`, fill: colour("panel") })),
      ],
    });
  }

  const percent = (share) => (100 * share).toFixed(1);

  // Rows: name, mean, low, high (or null), group.
  function intervals(place, { rows, label, zero }) {
    if (!rows.length) return;
    const names = [...new Set(rows.map((row) => row.name))];
    put(place, label, {
      width: Math.min(900, Math.max(500, place.clientWidth || 700)), height: 60 + 24 * names.length,
      marginLeft: widthOf(names), x: { label: null, grid: true, percent: true }, y: { label: null, domain: names },
      color: { legend: false },
      marks: [
        zero ? Plot.ruleX([0], { stroke: colour("muted"), strokeDasharray: "4 3" }) : null,
        Plot.link(rows.filter((row) => row.low !== null), { y: "name", x1: "low", x2: "high", stroke: colour("teacher-line"), strokeWidth: 2 }),
        Plot.dot(rows, { y: "name", x: "mean", fill: colour("student-line"), r: 4, title: (row) => `${row.name}: ${percent(row.mean)}${row.low === null ? "" : ` [${percent(row.low)}, ${percent(row.high)}]`}` }),
      ],
    });
  }

  // Rows: at (ISO time), value, arm.
  function runs(place, { rows, label }) {
    if (!rows.length) return;
    const dated = rows.map((row) => ({ ...row, at: new Date(row.at) }));
    const arms = [...new Set(rows.map((row) => row.arm))];
    put(place, label, {
      width: Math.min(900, Math.max(500, place.clientWidth || 700)), height: 50 + 56 * arms.length,
      marginLeft: 46, marginRight: widthOf(arms),
      x: { label: null, type: "utc" }, y: { label: null, grid: true, ticks: 2, percent: true },
      fy: { label: null, domain: arms, padding: 0.35 }, // a row an arm: labels beside points would hide one another
      marks: [
        Plot.lineY(dated, { x: "at", y: "value", fy: "arm", stroke: colour("close-line") }),
        Plot.dot(dated, { x: "at", y: "value", fy: "arm", fill: colour("teacher-line"), title: (row) => `${row.arm}: ${percent(row.value)} %` }),
      ],
    });
  }

  const KINDS = { histograms, intervals, runs };

  function drawAll(within) {
    for (const place of within.querySelectorAll("[data-numbers]")) {
      if (!place.querySelector("figure")) KINDS[place.dataset.chart](place, JSON.parse(place.dataset.numbers));
    }
  }

  document.addEventListener("DOMContentLoaded", () => drawAll(document));
  document.addEventListener("htmx:afterSwap", (event) => drawAll(event.target));
  return { curve };
})();
