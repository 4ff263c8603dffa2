// Runs beside a baseline, and two configurations beside one another.

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// Sample standard deviation.
function deviation(values) {
  const middle = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1));
}

class Comparison {
  constructor(data) {
    this.data = data;
    this.body = document.getElementById("comparison-body");
    this.baseline = 0;
    const sizes = data.groups.map((_, group) => data.runs.filter((run) => run.group === group).length);
    this.seeded = sizes.some((size) => size > 1);
    this.pairs = this.seeded;
    const options = data.runs.map((run, index) => [String(index), run.label]);
    const tools = [choice("Baseline", options, "0", (index) => {
      this.baseline = Number(index);
      this.render();
    })];
    if (this.seeded) {
      tools.push(tick("Pair runs by seed: mean ± standard deviation of the differences", true, (on) => {
        this.pairs = on;
        this.render();
      }));
    }
    document.getElementById("comparison-tools").append(...tools);
    shown.listeners.push(() => this.render());
  }

  value(run, column) {
    const value = this.data.runs[run].values[column];
    return value === null ? null : Number(value);
  }

  // Seeds are names, and not more or less.
  columns() {
    return this.data.columns.map((column, index) => ({ ...column, index })).filter((column) => column.id !== "seed");
  }

  render() {
    const lines = this.pairs ? this.byGroup() : this.byRun();
    const columns = this.columns().filter((column) => lines.some((line) => line.cells.get(column.id)));
    const head = ["Run", ...columns.map((column) => (column.unit ? `${column.title} (${column.unit})` : column.title))];
    const rows = lines.map((line) => [
      line.base ? make("strong", {}, `${line.label} (baseline)`) : line.label,
      ...columns.map((column) => line.cells.get(column.id) ?? "–"),
    ]);
    const note = this.pairs
      ? "The baseline's line has its means over the seeds; the others the differences from it, seed by seed."
      : "The baseline's line has its own values; the others the differences from it.";
    this.body.replaceChildren(make("p", { class: "quiet" }, `${note} ▲ is better and ▼ is worse.`), table("Differences from the baseline", head, rows));
  }

  byRun() {
    const runs = [this.baseline, ...[...shown.runs].filter((run) => run !== this.baseline).sort((a, b) => a - b)];
    return runs.map((run) => {
      const cells = new Map();
      for (const column of this.columns()) {
        const [own, base] = [this.value(run, column.index), this.value(this.baseline, column.index)];
        if (run === this.baseline) cells.set(column.id, own === null ? null : this.plain(own, column));
        else if (own !== null && base !== null) cells.set(column.id, this.difference(own - base, column));
      }
      return { label: this.data.runs[run].label, base: run === this.baseline, cells };
    });
  }

  byGroup() {
    const { runs, groups } = this.data;
    const base = runs[this.baseline].group;
    const of = (group) => runs.flatMap((run, index) => (run.group === group && (shown.runs.has(index) || group === base) ? [index] : []));
    const order = [base, ...groups.keys()].filter((group, at) => of(group).length && (at === 0 || group !== base));
    return order.map((group) => {
      const cells = new Map();
      for (const column of this.columns()) {
        const values = (which) => of(which).map((run) => [runs[run].seed, this.value(run, column.index)]).filter(([, value]) => value !== null);
        const own = values(group);
        if (!own.length) continue;
        if (group === base) {
          cells.set(column.id, this.spread(own.map(([, value]) => value), (value) => this.plain(value, column)));
          continue;
        }
        const bases = new Map(values(base));
        const pairs = own.filter(([seed]) => bases.has(seed)).map(([seed, value]) => value - bases.get(seed));
        if (pairs.length) cells.set(column.id, this.spread(pairs, (value) => this.difference(value, column)));
        else if (bases.size) cells.set(column.id, [this.difference(mean(own.map(([, value]) => value)) - mean([...bases.values()]), column), " unpaired"]);
      }
      const size = of(group).length;
      return { label: size > 1 ? `${groups[group]} (${size} seeds)` : groups[group], base: group === base, cells };
    });
  }

  // A mean as `write` writes it, with its deviation.
  spread(values, write) {
    const parts = [write(mean(values))].flat();
    if (values.length > 1 && values.every(Number.isFinite)) {
      const digits = /\.(\d+)/.exec(parts[0].textContent ?? parts[0])?.[1].length ?? 0;
      parts.push(` ± ${deviation(values).toFixed(digits)}`);
    }
    return parts;
  }

  plain(value, column) {
    return Number.isFinite(value) ? value.toFixed(column.digits) : "∞";
  }

  difference(value, column) {
    if (Number.isNaN(value)) return "–";
    const zero = Math.abs(value) < 0.5 * 10 ** -column.digits;
    const sign = zero ? "" : value > 0 ? "+" : "−";
    const text = `${sign}${Number.isFinite(value) ? Math.abs(value).toFixed(column.digits) : "∞"}`;
    if (zero || column.better === "either") return make("span", {}, text);
    const better = (value > 0) === (column.better === "more");
    return make("span", { class: better ? "better" : "worse" }, text, make("span", { role: "img", "aria-label": better ? "better" : "worse" }, better ? " ▲" : " ▼"));
  }
}

class Configurations {
  constructor(data) {
    this.data = data;
    this.body = document.getElementById("configurations-body");
    this.sides = [0, Math.min(1, data.runs.length - 1)];
    this.all = false;
    const options = data.runs.map((run, index) => [String(index), run.label]);
    const side = (at, text) => choice(text, options, String(this.sides[at]), (index) => {
      this.sides[at] = Number(index);
      this.render();
    });
    document.getElementById("configurations-tools").append(side(0, "First"), side(1, "Second"), tick("Also keys that are the same", false, (on) => {
      this.all = on;
      this.render();
    }));
    this.render();
  }

  render() {
    const [a, b] = this.sides.map((run) => new Map(this.data.runs[run].config));
    const keys = [...new Set([...a.keys(), ...b.keys()])].sort();
    const differing = keys.filter((key) => a.get(key) !== b.get(key));
    const rows = (this.all ? keys : differing).map((key) => {
      const mark = a.get(key) === b.get(key) ? (text) => text : (text) => make("mark", {}, text);
      const cell = (side) => (side.has(key) ? make("code", {}, mark(side.get(key))) : "–");
      return [make("code", {}, key), cell(a), cell(b)];
    });
    const count = make("p", { class: "quiet", role: "status" }, `${differing.length} of ${keys.length} keys differ`);
    const labels = this.sides.map((run) => this.data.runs[run].label);
    this.body.replaceChildren(count, ...(rows.length ? [table("Values of both configurations", ["Key", ...labels], rows, 3)] : []));
  }
}
