// From the page's data to what a plot draws. A series is { id, label, style, shape, points }, and a point
// { x, y, note, low, high }; shapes are "line", "band", "whiskers",
// "steps" and "level".

const AXES = [
  ["round", "Communication round", ""],
  ["time", "Virtual time", "seconds"],
  ["bytes", "Bytes, both ways", "bytes"],
  ["joules", "Energy on devices", "joules"],
];

// The axes against which a quantity of some run can be drawn.
function axesOf(data, quantity) {
  const tables = data.runs.map((run) => run.tables[quantity.table]).filter(Boolean);
  return AXES.filter(([id]) => id === "round" || tables.some((table) => table.spent[id]));
}

function curves(data, quantity, axis) {
  const series = [];
  data.runs.forEach((run, index) => {
    const table = run.tables[quantity.table];
    const values = table?.values[quantity.id];
    const places = axis === "round" ? table?.round : table?.spent[axis];
    if (!values || !places || !shown.runs.has(index)) return;
    const points = [];
    values.forEach((y, row) => {
      if (y === null || places[row] === null) return;
      const note = axis === "round" ? "" : `round ${table.round[row]}`;
      points.push({ x: places[row], y, note, round: table.round[row] });
    });
    if (points.length) series.push({ id: `run-${index}`, label: run.label, style: index, shape: "line", points, group: run.group });
  });
  return shown.means ? series.map((one) => one.group).filter(first).map((group) => {
    const same = series.filter((one) => one.group === group);
    return { ...joined(data, group, same.length), shape: "band", points: meanCurve(same) };
  }) : series;
}

const first = (value, index, all) => all.indexOf(value) === index;

// What the series of a group of seeds is called.
function joined(data, group, count) {
  return { id: `group-${group}`, style: group, label: count > 1 ? `${data.groups[group]} (mean of ${count})` : data.groups[group] };
}

// Mean and range of runs at the rounds of the one with the most points, as far as all of them go. Between
// its points a run is where its line is drawn.
function meanCurve(same) {
  const longest = same.reduce((most, one) => (one.points.length > most.points.length ? one : most));
  const points = [];
  for (const { round } of longest.points) {
    const found = same.map((one) => onLine(one.points, round));
    if (found.includes(null)) continue;
    const values = found.map((point) => point.y);
    const x = found.reduce((sum, point) => sum + point.x, 0) / found.length;
    const y = values.reduce((sum, value) => sum + value, 0) / values.length;
    const note = longest.points[0].note ? `round ${round}` : "";
    points.push({ x, y, low: Math.min(...values), high: Math.max(...values), note });
  }
  return points;
}

// Where the line through some points is at a round; null where it has not begun or has ended.
function onLine(points, round) {
  const after = points.findIndex((point) => point.round >= round);
  const to = points[after];
  if (!to || (after === 0 && to.round > round)) return null;
  if (to.round === round) return to;
  const from = points[after - 1];
  const share = (round - from.round) / (to.round - from.round);
  return { x: from.x + share * (to.x - from.x), y: from.y + share * (to.y - from.y) };
}

// Clients by their accuracy, as shares of the run's clients. The seeds of a group are one crowd.
function distributions(data) {
  const evaluated = data.runs.flatMap((run, index) => (run.clients && shown.runs.has(index) ? [{ run, index }] : []));
  if (!shown.means) {
    return evaluated.map(({ run, index }) => ({
      id: `run-${index}`, label: run.label, style: index, ...stairs(run.clients), facts: factsOf(run),
    }));
  }
  return evaluated.map(({ run }) => run.group).filter(first).map((group) => {
    const same = evaluated.filter(({ run }) => run.group === group).map(({ run }) => run);
    const clients = {
      clients: same.reduce((sum, run) => sum + run.clients.clients, 0),
      bins: same[0].clients.bins.map((_, bin) => same.reduce((sum, run) => sum + run.clients.bins[bin], 0)),
    };
    const label = same.length > 1 ? `${data.groups[group]} (${same.length} seeds)` : data.groups[group];
    return { ...joined(data, group, 1), label, ...stairs(clients), facts: same.map(factsOf).join("; ") };
  });
}

function stairs({ bins, clients }) {
  const width = 1 / bins.length;
  const points = bins.map((count, bin) => ({ x: (bin + 0.5) * width, y: count / clients, note: `${count} of ${clients} clients` }));
  return { shape: "steps", points, width };
}

function factsOf({ seed, clients }) {
  const percent = (value) => significant(100 * value, 3);
  const [least, tenth, median, most] = clients.ranks.map(percent);
  return `seed ${seed}: ${clients.clients} clients (${clients.split}), least ${least} %, tenth ${tenth} %, median ${median} %, most ${most} %, mean ${percent(clients.mean)} ± ${percent(clients.deviation)} %`;
}

function middle(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

// Accuracy against epsilon: medians over the seeds of runs that ask for the same, with their range.
function tradeoffs(data) {
  const series = [];
  data.lines.forEach((line, index) => {
    const asked = new Map();
    data.runs.forEach((run, at) => {
      if (run.tradeoff?.line !== index || !shown.runs.has(at)) return;
      const same = asked.get(run.tradeoff.asked) ?? [];
      asked.set(run.tradeoff.asked, [...same, run.tradeoff]);
    });
    const points = [...asked.values()].map((same) => {
      const accuracies = same.map((point) => point.accuracy);
      return {
        x: line.private ? middle(same.map((point) => point.epsilon)) : null,
        y: middle(accuracies),
        low: Math.min(...accuracies),
        high: Math.max(...accuracies),
        note: same.length > 1 ? `${same.length} seeds` : "",
      };
    }).sort((a, b) => a.x - b.x);
    const label = line.hypothetical ? `${line.label}, hypothetical` : line.label;
    if (points.length) series.push({ id: `line-${index}`, label, style: index, shape: line.private ? "whiskers" : "level", points });
  });
  // Level lines go from the least epsilon to the greatest.
  const places = series.filter((one) => one.shape !== "level").flatMap((one) => one.points.map((point) => point.x));
  if (!places.length) return [];
  for (const level of series.filter((one) => one.shape === "level")) {
    const [point] = level.points;
    level.points = [Math.min(...places), Math.max(...places)].map((x) => ({ ...point, x }));
  }
  return series;
}
