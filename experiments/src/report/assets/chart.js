// A plot: SVG that is drawn anew whenever something changes, with a legend, tools and a table.

const COLOURS = 7;
const DASHES = ["", "6 3.5", "1.5 3.5", "8 3.5 1.5 3.5"];
// Of runs without privacy, beside the lines of those with.
const LEVEL = "5 4";
// Around the origin, as in the pictures: disc, square, triangle, diamond, ring, downward triangle, frame,
// cross. They are one more than the colours, so that both together tell 56 series apart.
const MARKERS = [
  "M3 0A3 3 0 1 1 -3 0A3 3 0 1 1 3 0Z",
  "M-2.7 -2.7H2.7V2.7H-2.7Z",
  "M0 -3.9L3.5 2.7H-3.5Z",
  "M0 -4L3.4 0L0 4L-3.4 0Z",
  "M3.4 0A3.4 3.4 0 1 1 -3.4 0A3.4 3.4 0 1 1 3.4 0ZM1.8 0A1.8 1.8 0 1 1 -1.8 0A1.8 1.8 0 1 1 1.8 0Z",
  "M0 3.9L3.5 -2.7H-3.5Z",
  "M-3.1 -3.1H3.1V3.1H-3.1ZM-1.5 -1.5H1.5V1.5H-1.5Z",
  "M0 -1.3L2.2 -3.5L3.5 -2.2L1.3 0L3.5 2.2L2.2 3.5L0 1.3L-2.2 3.5L-3.5 2.2L-1.3 0L-3.5 -2.2L-2.2 -3.5Z",
];
const HEIGHT = 340;
// Markers stand at the points as long as there are no more than this.
const MARKED = 300;

function styleOf(index) {
  return {
    class: `s${index % COLOURS}`,
    dash: DASHES[Math.floor(index / COLOURS) % DASHES.length],
    marker: MARKERS[index % MARKERS.length],
  };
}

// A sample of a series' line for its legend.
function sample({ style: index, shape }) {
  const style = styleOf(index);
  return draw("svg", { class: `sample ${style.class}`, viewBox: "0 0 30 12", width: 30, height: 12, "aria-hidden": "true" },
    draw("path", { class: "line", d: "M1 6H29", "stroke-dasharray": shape === "level" ? LEVEL : style.dash }),
    draw("path", { class: "marker", d: style.marker, transform: "translate(15 6)" }));
}

class Chart {
  constructor(data, figure) {
    this.data = data;
    this.figure = figure;
    this.quantity = figure.quantities[0];
    this.axis = "round";
    // Epsilons of a sweep are mostly powers of two.
    const epsilons = data.runs.flatMap((run) => run.tradeoff?.epsilon ?? []);
    this.logarithmic = figure.kind === "tradeoff" && Math.max(...epsilons) > 3 * Math.min(...epsilons);
    this.hidden = new Set();
    this.view = null;
    this.cursor = null;
    this.focused = null;
    this.dirty = true;
    this.near = false;
    const id = `figure-${figure.id}`;
    this.plot = make("div", {
      class: "plot", tabindex: 0, role: "application", "aria-label": `${figure.title}, plot`, "aria-describedby": "plots-keys",
      keydown: (event) => this.key(event),
      pointerdown: (event) => this.press(event),
      pointermove: (event) => this.move(event),
      pointerup: (event) => this.release(event),
      pointercancel: () => this.drop(),
      pointerleave: () => this.leave(),
      dblclick: () => this.reset(),
    });
    this.readout = make("p", { class: "readout", "aria-live": "off" }, "\u00a0");
    this.legend = make("div", { class: "legend", role: "group", "aria-label": `Series of ${figure.title}`, keydown: (event) => this.legendKey(event) });
    this.tools = make("div", { class: "tools" });
    this.rows = make("div");
    this.fold = make("details", { class: "data", toggle: () => this.tabulate() }, make("summary", {}, `${figure.title} as a table`), this.rows);
    this.element = make("section", { class: "figure", id, "aria-labelledby": `${id}-title` },
      make("h3", { id: `${id}-title` }, figure.title),
      this.tools, this.plot, this.readout, this.legend,
      figure.note ? make("p", { class: "quiet" }, figure.note) : null, this.fold);
    this.equip();
  }

  // Selects and buttons above the plot.
  equip() {
    const kind = this.figure.kind;
    const fields = [];
    if (this.figure.quantities.length > 1) {
      const options = this.figure.quantities.map((quantity) => [quantity.id, quantity.label]);
      fields.push(choice("Quantity", options, this.quantity.id, (id) => {
        this.quantity = this.figure.quantities.find((quantity) => quantity.id === id);
        if (!axesOf(this.data, this.quantity).some(([axis]) => axis === this.axis)) this.axis = "round";
        this.equip();
        this.tools.querySelector("select").focus();
        this.reset();
      }));
    }
    if (kind === "curves") {
      const axes = axesOf(this.data, this.quantity).map(([id, text]) => [id, text]);
      if (axes.length > 1) {
        fields.push(choice("Against", axes, this.axis, (axis) => {
          this.axis = axis;
          this.reset();
        }));
      }
    }
    if (kind !== "clients") {
      const text = kind === "tradeoff" ? "Logarithmic epsilon" : "Logarithmic";
      fields.push(tick(text, this.logarithmic, (on) => {
        this.logarithmic = on;
        this.reset();
      }));
    }
    const name = this.figure.title;
    fields.push(make("span", { class: "buttons" },
      button("Zoom in", () => this.zoom(1.5), { "aria-label": `Zoom in on ${name}` }),
      button("Zoom out", () => this.zoom(1 / 1.5), { "aria-label": `Zoom out of ${name}` }),
      button("Reset", () => this.reset(), { "aria-label": `Reset the view of ${name}` }),
      button("All series", () => {
        this.hidden.clear();
        this.refresh();
      }, { "aria-label": `Show all series of ${name}` })));
    this.tools.replaceChildren(...fields);
  }

  // The data changed, or the runs that are shown.
  refresh() {
    this.dirty = true;
    if (this.near) this.render();
  }

  approach() {
    this.near = true;
    if (this.dirty) this.render();
  }

  series() {
    if (this.figure.kind === "tradeoff") return tradeoffs(this.data);
    if (this.figure.kind === "clients") return distributions(this.data);
    return curves(this.data, this.quantity, this.axis);
  }

  render() {
    this.dirty = false;
    this.all = this.series();
    this.drawn = this.all.filter((one) => !this.hidden.has(one.id));
    if (!this.drawn.some((one) => one.id === this.cursor?.id)) this.cursor = null;
    this.list();
    this.paint();
    this.tabulate();
  }

  // What the axes are called, in which units.
  scales() {
    const points = this.drawn.flatMap((one) => one.points);
    const most = (pick) => points.reduce((high, point) => Math.max(high, Math.abs(pick(point))), 0);
    if (this.figure.kind === "tradeoff") {
      return { x: { title: "Epsilon that the budget is about", unit: unitOf("", 1), log: this.logarithmic }, y: { title: "Test accuracy", unit: unitOf("share", 1), log: false } };
    }
    if (this.figure.kind === "clients") {
      return { x: { title: "Accuracy of a client", unit: unitOf("share", 1), log: false }, y: { title: "Clients", unit: unitOf("share", 1), log: false } };
    }
    const [, title, kind] = AXES.find(([id]) => id === this.axis);
    return {
      x: { title, unit: unitOf(kind, most((point) => point.x)), log: false },
      y: { title: this.quantity.label, unit: unitOf(this.quantity.unit, most((point) => point.y)), log: this.logarithmic },
    };
  }

  // The whole range of what is drawn, with some air.
  extent(axis, pick, kind) {
    const usable = (value) => Number.isFinite(value) && (!axis.log || value > 0);
    let low = Infinity;
    let high = -Infinity;
    for (const one of this.drawn) {
      for (const point of one.points) {
        for (const value of pick(point, one)) {
          if (!usable(value)) continue;
          low = Math.min(low, value);
          high = Math.max(high, value);
        }
      }
    }
    if (low > high) return axis.log ? [1, 10] : [0, 1];
    if (axis.log) return low < high ? [low / (high / low) ** 0.03, high * (high / low) ** 0.03] : [low / 2, high * 2];
    if (kind === "x") return low < high ? [Math.min(low, this.figure.kind === "curves" ? 0 : low), high] : [low - 0.5, high + 0.5];
    const air = (high - low || Math.abs(high) || 1) * 0.05;
    // From zero, where zero is near.
    const from = low >= 0 && low < 0.4 * high ? 0 : low - air;
    return [from, high + air];
  }

  paint() {
    const width = Math.max(300, Math.round(this.plot.clientWidth) || 720);
    const scales = this.scales();
    const whole = {
      x: this.extent(scales.x, (point, one) => (one.shape === "steps" ? [point.x - one.width / 2, point.x + one.width / 2] : [point.x]), "x"),
      y: this.extent(scales.y, (point) => [point.y, point.low ?? point.y, point.high ?? point.y], "y"),
    };
    const view = this.view ?? whole;
    const box = { left: 62, top: 10, right: width - 14, bottom: HEIGHT - 46 };
    const along = (axis, range, from, to) => {
      const bent = axis.log ? Math.log : (value) => value;
      const [low, high] = range.map(bent);
      return {
        to: (value) => from + ((bent(value) - low) / (high - low)) * (to - from),
        back: (place) => {
          const value = low + ((place - from) / (to - from)) * (high - low);
          return axis.log ? Math.exp(value) : value;
        },
      };
    };
    const x = along(scales.x, view.x, box.left, box.right);
    const y = along(scales.y, view.y, box.bottom, box.top);
    this.frame = { box, x, y, view, whole, scales, width };

    // Markers may reach over the edge of the whole, and lines not over that of a part.
    const edge = this.view ? 0 : 4;
    const clip = `clip-${this.figure.id}`;
    const svg = draw("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" },
      draw("clipPath", { id: clip }, draw("rect", { x: box.left - edge, y: box.top - edge, width: box.right - box.left + 2 * edge, height: box.bottom - box.top + 2 * edge })),
      this.grid(), draw("g", { "clip-path": `url(#${clip})` }, this.lines()));
    this.band = draw("rect", { class: "band", visibility: "hidden" });
    this.dot = draw("g", { class: "cursor", visibility: "hidden" });
    svg.append(this.band, this.dot);
    if (!this.drawn.length) svg.append(draw("text", { x: width / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "no run is shown"));
    this.plot.replaceChildren(svg);
    this.point(this.cursor);
  }

  grid() {
    const { box, x, y, view, scales, width } = this.frame;
    const parts = [];
    const places = (axis, range, count) => {
      const scaled = range.map((value) => value / axis.unit.size);
      const found = axis.log ? logTicks(...scaled) : ticks(...scaled, count);
      return found.map((tick) => [tick * axis.unit.size, significant(tick, 5)]);
    };
    for (const [place, text] of places(scales.y, view.y, 5)) {
      const at = y.to(place);
      parts.push(draw("path", { class: "grid", d: `M${box.left} ${at}H${box.right}` }), draw("text", { x: box.left - 8, y: at + 4, "text-anchor": "end" }, text));
    }
    for (const [place, text] of places(scales.x, view.x, width < 500 ? 4 : 8)) {
      const at = x.to(place);
      parts.push(draw("path", { class: "grid", d: `M${at} ${box.top}V${box.bottom}` }), draw("text", { x: at, y: box.bottom + 18, "text-anchor": "middle" }, text));
    }
    const titled = (axis) => (axis.unit.name ? `${axis.title} (${axis.unit.name})` : axis.title);
    parts.push(
      draw("path", { class: "axis", d: `M${box.left} ${box.bottom}H${box.right}` }),
      draw("text", { class: "title", x: (box.left + box.right) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, titled(scales.x)),
      draw("text", { class: "title", transform: `translate(13 ${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, titled(scales.y)));
    return parts;
  }

  lines() {
    const { x, y, view } = this.frame;
    const within = (point) => point.x >= view.x[0] && point.x <= view.x[1];
    const count = this.drawn.reduce((sum, one) => sum + one.points.filter(within).length, 0);
    const crowd = this.drawn.length > 12 ? " many thin" : this.drawn.length > 4 ? " many" : "";
    const text = (...places) => places.map((place) => place.toFixed(1)).join(" ");
    return this.drawn.map((one) => {
      const style = styleOf(one.style);
      const group = draw("g", { class: `series ${style.class}${crowd}` });
      const spot = (point) => text(x.to(point.x), y.to(point.y));
      // A logarithm has no place for zero.
      const points = one.points.filter((point) => Number.isFinite(y.to(point.y)) && Number.isFinite(x.to(point.x)));
      const ranged = points.filter((point) => point.low < point.high && Number.isFinite(y.to(point.low)));
      if (one.shape === "band" && ranged.length) {
        const upper = points.map((point) => text(x.to(point.x), y.to(point.high)));
        const lower = points.map((point) => text(x.to(point.x), y.to(Number.isFinite(y.to(point.low)) ? point.low : point.y)));
        group.append(draw("path", { class: "range", d: `M${[...upper, ...lower.reverse()].join("L")}Z` }));
      }
      const steps = (point) => {
        const [from, to] = [-1, 1].map((side) => x.to(point.x + (side * one.width) / 2));
        return `${text(from, y.to(point.y))}H${text(to)}`;
      };
      const path = points.map(one.shape === "steps" ? steps : spot).join("L");
      if (path) group.append(draw("path", { class: "line", d: `M${path}`, "stroke-dasharray": one.shape === "level" ? LEVEL : style.dash }));
      for (const point of one.shape === "whiskers" ? ranged : []) {
        const [at, low, high] = [x.to(point.x), y.to(point.low), y.to(point.high)].map((place) => text(place));
        group.append(draw("path", { class: "line whisker", d: `M${at} ${low}V${high}M${at - 4} ${low}h8M${at - 4} ${high}h8` }));
      }
      // The last point always has its marker, so that series of one colour can be told apart.
      const marked = one.shape === "steps" ? points.filter((point) => point.y > 0) : count <= MARKED ? points : points.slice(-1);
      for (const point of marked) {
        group.append(draw("path", { class: "marker", d: style.marker, transform: `translate(${spot(point)})` }));
      }
      return group;
    });
  }

  // The legend. It is one stop of the Tab key; arrows go through it.
  list() {
    const at = this.all.findIndex((one) => one.id === this.focused);
    const current = Math.max(0, at);
    const had = this.legend.contains(document.activeElement);
    this.legend.replaceChildren(...this.all.map((one, index) => button([sample(one), make("span", {}, one.label)], (event) => this.toggle(one.id, event.shiftKey), {
      "aria-pressed": String(!this.hidden.has(one.id)),
      tabindex: index === current ? 0 : -1,
      "data-series": one.id,
    })));
    if (had) this.legend.children[current]?.focus();
  }

  toggle(id, alone) {
    this.focused = id;
    if (alone) this.hidden = new Set(this.all.map((one) => one.id).filter((other) => other !== id));
    else if (!this.hidden.delete(id)) this.hidden.add(id);
    this.refresh();
  }

  legendKey(event) {
    const buttons = [...this.legend.children];
    const at = buttons.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    const next = buttons[Math.min(Math.max(to, 0), buttons.length - 1)];
    buttons[at].tabIndex = -1;
    next.tabIndex = 0;
    this.focused = next.dataset.series;
    next.focus();
  }

  // The value at a place of a series, in words, and a mark on the plot.
  point(cursor, spoken = false) {
    const one = this.drawn.find((other) => other.id === cursor?.id);
    const point = one?.points[cursor.at];
    this.cursor = point ? cursor : null;
    this.dot.setAttribute("visibility", point ? "visible" : "hidden");
    if (!point) {
      this.readout.textContent = "\u00a0";
      return;
    }
    const { x, y, scales } = this.frame;
    this.dot.replaceChildren(draw("circle", { cx: x.to(point.x), cy: y.to(point.y), r: 6 }));
    this.dot.setAttribute("class", `cursor ${styleOf(one.style).class}`);
    const range = point.low < point.high ? ` (${inUnit(point.low, scales.y.unit)} to ${inUnit(point.high, scales.y.unit)})` : "";
    const at = one.shape === "level" ? "" : `${scales.x.title.toLowerCase()} ${this.place(one, point)}`;
    const words = [at, `${inUnit(point.y, scales.y.unit)}${range}`, point.note].filter(Boolean).join(", ");
    this.readout.setAttribute("aria-live", spoken ? "polite" : "off");
    this.readout.textContent = `${one.label}: ${words}`;
  }

  place(one, point) {
    const unit = this.frame.scales.x.unit;
    if (one.shape !== "steps") return inUnit(point.x, unit);
    return [-1, 1].map((side) => significant((point.x + (side * one.width) / 2) / unit.size)).join(" to ") + ` ${unit.name}`;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.frame) return;
    const act = {
      ArrowRight: () => (event.shiftKey ? this.pan(0.2) : this.step(1)),
      ArrowLeft: () => (event.shiftKey ? this.pan(-0.2) : this.step(-1)),
      ArrowUp: () => this.jump(-1),
      ArrowDown: () => this.jump(1),
      Home: () => this.step(-Infinity),
      End: () => this.step(Infinity),
      "+": () => this.zoom(1.5),
      "=": () => this.zoom(1.5),
      "-": () => this.zoom(1 / 1.5),
      0: () => this.reset(),
      Escape: () => this.reset(),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  step(by) {
    const one = this.drawn.find((other) => other.id === this.cursor?.id) ?? this.drawn[0];
    if (!one) return;
    const from = this.cursor ? this.cursor.at : by > 0 ? -1 : one.points.length;
    const at = Math.min(Math.max(from + by, 0), one.points.length - 1);
    this.point({ id: one.id, at }, true);
  }

  jump(by) {
    const from = this.drawn.findIndex((one) => one.id === this.cursor?.id);
    const next = this.drawn[Math.min(Math.max(from + by, 0), this.drawn.length - 1)];
    if (!next) return;
    const x = this.drawn[from]?.points[this.cursor.at]?.x ?? -Infinity;
    const at = next.points.findIndex((point) => point.x >= x);
    this.point({ id: next.id, at: at < 0 ? next.points.length - 1 : at }, true);
  }

  zoom(by) {
    if (!this.frame) return;
    const { view, box, x, scales } = this.frame;
    const one = this.drawn.find((other) => other.id === this.cursor?.id);
    const at = one ? x.to(one.points[this.cursor.at].x) : (box.left + box.right) / 2;
    const place = Math.min(Math.max(at, box.left), box.right);
    const range = [box.left, box.right].map((edge) => x.back(place + (edge - place) / by));
    if (!(range[1] - range[0] > 1e-9 * Math.abs(view.x[1] - view.x[0] || 1)) || (scales.x.log && range[0] <= 0)) return;
    this.show(range, view.y);
  }

  pan(by) {
    const { view, box, x } = this.frame;
    const move = by * (box.right - box.left);
    this.show([box.left, box.right].map((edge) => x.back(edge + move)), view.y);
  }

  // Shows a part, and all of it where it is no part.
  show(x, y) {
    const { whole } = this.frame;
    const inside = [Math.max(x[0], whole.x[0]), Math.min(x[1], whole.x[1])];
    if (!(inside[1] > inside[0])) return;
    const full = inside[0] <= whole.x[0] && inside[1] >= whole.x[1] && y[0] <= whole.y[0] && y[1] >= whole.y[1];
    this.view = full ? null : { x: inside, y };
    this.element.classList.toggle("zoomed", !full);
    this.paint();
  }

  reset() {
    this.view = null;
    this.element.classList.remove("zoomed");
    this.refresh();
  }

  at(event) {
    const area = this.plot.getBoundingClientRect();
    const scale = this.frame.width / area.width;
    return { x: (event.clientX - area.left) * scale, y: (event.clientY - area.top) * scale };
  }

  press(event) {
    if (event.button !== 0 || !this.frame) return;
    // A finger scrolls the page; where it touches is read.
    if (event.pointerType === "touch") {
      this.nearest(this.at(event));
      return;
    }
    this.start = this.at(event);
    this.plot.setPointerCapture(event.pointerId);
  }

  move(event) {
    if (!this.frame) return;
    const at = this.at(event);
    if (this.start) {
      const { box } = this.frame;
      const [left, right] = [this.start.x, at.x].sort((a, b) => a - b).map((place) => Math.min(Math.max(place, box.left), box.right));
      const tall = Math.abs(at.y - this.start.y) > 24;
      const [top, bottom] = tall ? [this.start.y, at.y].sort((a, b) => a - b).map((place) => Math.min(Math.max(place, box.top), box.bottom)) : [box.top, box.bottom];
      this.area = { left, right, top, bottom, tall };
      fill(this.band, { x: left, y: top, width: right - left, height: bottom - top, visibility: "visible" }, []);
      return;
    }
    this.nearest(at);
  }

  // The point next to the pointer, unless none is near.
  nearest(at) {
    const { x, y } = this.frame;
    let best = { distance: 40 ** 2 };
    for (const one of this.drawn) {
      one.points.forEach((point, index) => {
        const distance = (x.to(point.x) - at.x) ** 2 + (y.to(point.y) - at.y) ** 2;
        if (distance < best.distance) best = { distance, id: one.id, at: index };
      });
    }
    this.point(best.id === undefined ? null : best);
  }

  release() {
    const { area } = this;
    this.drop();
    if (!area || area.right - area.left < 8) return;
    const { x, y, view } = this.frame;
    this.show([x.back(area.left), x.back(area.right)], area.tall ? [y.back(area.bottom), y.back(area.top)] : view.y);
  }

  drop() {
    this.start = null;
    this.area = null;
    this.band?.setAttribute("visibility", "hidden");
  }

  leave() {
    if (!this.start && document.activeElement !== this.plot && this.frame) this.point(null);
  }

  // The same in a table: a line for each series, and every point of one of them.
  tabulate() {
    if (!this.fold.open || !this.frame) return;
    const { scales } = this.frame;
    const value = (number) => inUnit(number, scales.y.unit, 5);
    const spot = (one, point) => `${value(point.y)} at ${this.place(one, point)}`;
    const rows = this.drawn.map((one) => {
      const sorted = one.points.toSorted((a, b) => a.y - b.y);
      const [first, last] = [one.points[0], one.points.at(-1)];
      return [one.label, spot(one, first), spot(one, sorted[0]), spot(one, sorted.at(-1)), spot(one, last), String(one.points.length)];
    });
    const facts = this.drawn.filter((one) => one.facts).map((one) => make("li", {}, `${one.label}. ${one.facts}`));
    const picked = this.drawn.find((one) => one.id === this.picked) ?? this.drawn[0];
    const parts = [table(`${this.figure.title}, a line for each series`, ["Series", "First", "Least", "Greatest", "Last", "Points"], rows)];
    if (facts.length) parts.push(make("ul", { class: "plain quiet" }, facts));
    if (picked) {
      const options = this.drawn.map((one) => [one.id, one.label]);
      const noted = picked.points.some((point) => point.note);
      const head = [scales.x.title, scales.y.title, ...(noted ? ["Note"] : [])];
      const points = picked.points.map((point) => [this.place(picked, point), value(point.y), ...(noted ? [point.note] : [])]);
      parts.push(
        make("div", { class: "tools" }, choice("All points of", options, picked.id, (id) => {
          this.picked = id;
          this.tabulate();
          this.rows.querySelector("select").focus();
        })),
        table(`${this.figure.title} of ${picked.label}`, head, points, 0));
    }
    this.rows.replaceChildren(...parts);
  }
}
