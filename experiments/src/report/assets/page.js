// Puts the parts together. `document.documentElement.dataset.ready` says when the page can be used.

function start() {
  const data = JSON.parse(document.getElementById("data").textContent);
  shown.runs = new Set(data.runs.keys());

  const host = document.getElementById("figures");
  host.append(make("p", { id: "plots-keys", hidden: true }, "Left and right go along a series, up and down to another, plus and minus zoom, zero shows everything. The same values are in the table below."));
  const charts = data.figures.map((figure) => new Chart(data, figure));
  const seeded = data.groups.length < data.runs.length;
  if (seeded) {
    // Many lines are hard to read.
    shown.means = data.runs.length > 12;
    host.append(make("div", { class: "tools" }, tick("Runs that differ in the seed alone are one series: their mean, with the range", shown.means, (means) => shown.set({ means }))));
  }
  host.append(...charts.map((chart) => chart.element));
  shown.listeners.push(() => charts.forEach((chart) => chart.refresh()));

  // Plots are drawn when they come near, again when their width changes, and all before printing.
  const byElement = new Map(charts.map((chart) => [chart.plot, chart]));
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) byElement.get(entry.target).approach();
    }
  }, { rootMargin: "400px" });
  const sized = new ResizeObserver((entries) => {
    for (const entry of entries) {
      const chart = byElement.get(entry.target);
      if (chart.near && chart.frame && chart.frame.width !== Math.max(300, Math.round(entry.contentRect.width))) chart.paint();
    }
  });
  for (const chart of charts) {
    near.observe(chart.plot);
    sized.observe(chart.plot);
  }
  window.addEventListener("beforeprint", () => charts.forEach((chart) => chart.approach()));

  new Overview(data);
  if (data.runs.length > 1) {
    new Comparison(data).render();
    new Configurations(data);
  }

  for (const place of document.querySelectorAll("dd.copy")) {
    const text = place.textContent;
    const copy = button("Copy", () => copyText(text, copy), { "aria-label": `Copy ${text}` });
    place.append(" ", copy);
  }

  // A link to a run unfolds it.
  const unfold = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) target.open = true;
  };
  window.addEventListener("hashchange", unfold);
  unfold();
  document.documentElement.dataset.ready = "yes";
}

// The clipboard is not to be had on every page; then the text is selected.
async function copyText(text, copy) {
  try {
    await navigator.clipboard.writeText(text);
    copy.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(copy.parentElement.querySelector("code"));
    copy.textContent = "Selected";
  }
}

start();
