// The overview: sorting, filtering, columns, and the choice of runs for all parts of the page.

class Overview {
  constructor(data) {
    this.data = data;
    this.table = document.getElementById("overview-table");
    this.body = this.table.tBodies[0];
    this.rows = [...this.body.rows];
    this.order = null;
    this.boxes = [];
    this.addBoxes();
    this.addSorting();
    this.addTools();
  }

  addBoxes() {
    this.table.tHead.rows[0].prepend(make("th", { scope: "col" }, "Show"));
    this.rows.forEach((row, index) => {
      const box = make("input", { type: "checkbox", "aria-label": `Show ${this.data.runs[index].label}`, change: () => this.publish() });
      box.checked = true;
      this.boxes.push(box);
      row.prepend(make("td", {}, box));
    });
  }

  addSorting() {
    this.heads = [...this.table.tHead.querySelectorAll("th[data-column]")];
    for (const head of this.heads) {
      const column = head.dataset.column;
      const text = make("button", { type: "button", class: "sort", click: () => this.sort(column) }, ...head.childNodes);
      head.replaceChildren(text);
    }
  }

  addTools() {
    this.count = make("p", { class: "quiet", role: "status" });
    const filter = make("input", { type: "search", input: () => this.filter(filter.value) });
    const set = (pick) => () => {
      this.boxes.forEach((box, index) => { box.checked = pick(index); });
      this.publish();
    };
    const columns = this.data.columns.map((column) => tick(column.title, true, (on) => this.column(column.id, on)));
    document.getElementById("overview-tools").append(
      field("Filter by name, status or key = value", filter),
      make("span", { class: "buttons" },
        button("Show all", set(() => true)),
        button("Show none", set(() => false)),
        button("Show only the listed", set((index) => !this.rows[index].hidden))),
      make("details", { class: "columns" }, make("summary", {}, "Columns"), make("fieldset", {}, make("legend", {}, "Columns of the table"), columns)),
      this.count);
    // What is rarely asked for is there on request, where there is much.
    if (this.data.columns.length > 9) {
      const rare = ["best", "unamplified", "parameters", "patch", "failed", "wall"];
      this.data.columns.forEach((column, index) => {
        if (!rare.includes(column.id)) return;
        columns[index].querySelector("input").checked = false;
        this.column(column.id, false);
      });
    }
    this.filter("");
  }

  publish() {
    shown.set({ runs: new Set(this.boxes.flatMap((box, index) => (box.checked ? [index] : []))) });
    this.tell();
  }

  tell() {
    const listed = this.rows.filter((row) => !row.hidden).length;
    const ticked = this.boxes.filter((box) => box.checked).length;
    this.count.textContent = `${listed} of ${this.rows.length} runs listed, ${ticked} shown in plots and comparison`;
  }

  // What a column sorts by.
  key(index, column) {
    const run = this.data.runs[index];
    if (column === "label") return run.label;
    if (column === "status") return run.status;
    if (column === "digest") return this.rows[index].cells[this.rows[index].cells.length - 1].textContent;
    const value = run.values[this.data.columns.findIndex((other) => other.id === column)];
    return value === null ? null : Number(value);
  }

  sort(column) {
    const down = this.order?.column === column && !this.order.down;
    this.order = { column, down };
    const compare = (a, b) => {
      // Runs without a value come last, in both directions.
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.index - b.index;
      const by = typeof a.key === "string" ? a.key.localeCompare(b.key, "en", { numeric: true }) : a.key - b.key;
      return (down ? -by : by) || a.index - b.index;
    };
    const keyed = this.rows.map((row, index) => ({ row, index, key: this.key(index, column) }));
    this.body.append(...keyed.sort(compare).map(({ row }) => row));
    for (const head of this.heads) {
      if (head.dataset.column === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  }

  // Every word must be found in the name, the status or the configuration.
  filter(text) {
    const plain = (words) => words.toLowerCase().replaceAll('"', "").replace(/\s*=\s*/g, "=");
    const words = plain(text).split(/\s+/).filter(Boolean);
    this.rows.forEach((row, index) => {
      const run = this.data.runs[index];
      const all = plain([run.label, run.status, ...run.config.map(([key, value]) => `${key}=${value}`)].join("\n"));
      row.hidden = !words.every((word) => all.includes(word));
    });
    this.tell();
  }

  column(id, on) {
    const at = this.heads.findIndex((head) => head.dataset.column === id) + 1;
    for (const row of this.table.rows) row.cells[at].hidden = !on;
  }
}
