// Elements, and what is shared by all parts of the page. The parts are joined into one script.
"use strict";

const SVG = "http://www.w3.org/2000/svg";

// An element with attributes (functions are listeners) and children (strings are text, never HTML).
function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

// A field with its label.
let fields = 0;
function field(text, control) {
  fields += 1;
  control.id = `field-${fields}`;
  return make("div", { class: "field" }, make("label", { for: control.id }, text), control);
}

// A labelled choice of [value, text] pairs.
function choice(text, options, value, changed) {
  const select = make("select", { change: () => changed(select.value) });
  for (const [id, name] of options) select.append(make("option", { value: id }, name));
  select.value = value;
  return field(text, select);
}

function tick(text, checked, changed, attributes = {}) {
  const box = make("input", { type: "checkbox", ...attributes, change: () => changed(box.checked) });
  box.checked = checked;
  return make("label", { class: "tick" }, box, make("span", {}, text));
}

function button(text, pressed, attributes = {}) {
  return make("button", { type: "button", click: pressed, ...attributes }, text);
}

// A table that scrolls by itself where the page is too narrow.
function table(label, head, rows, textColumns = 1) {
  const kind = (column) => (column < textColumns ? {} : { class: "number" });
  const cell = (value, column) => {
    const name = column === 0 ? "th" : "td";
    const scope = column === 0 ? { scope: "row" } : {};
    return make(name, { ...scope, ...kind(column) }, value);
  };
  return make("div", { class: "scroll", role: "region", "aria-label": label, tabindex: 0 },
    make("table", {},
      make("thead", {}, make("tr", {}, head.map((text, column) => make("th", { scope: "col", ...kind(column) }, text)))),
      make("tbody", {}, rows.map((row) => make("tr", {}, row.map(cell))))));
}

// Which runs are shown everywhere, whether the seeds of a setting are one series, and who wants to hear of
// a change.
const shown = {
  runs: new Set(),
  means: false,
  listeners: [],
  set(change) {
    Object.assign(this, change);
    for (const listener of this.listeners) listener();
  },
};
