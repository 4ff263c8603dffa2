// Clicks through the page of `fledgling report` in headless Chromium.
//
//   node report.mjs REPORT.html SCREENSHOTS
//
// The report is of the runs of `runs.toml` with seeds 1 to 5. `CHROMIUM` names the browser, where it is
// not /usr/bin/chromium. `cargo xtask browser` makes the report and calls this.

import assert from "node:assert/strict";
import { mkdirSync, statSync } from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { AxeBuilder } from "@axe-core/playwright";
import { chromium } from "playwright-core";

const [file, pictures] = process.argv.slice(2).map((argument) => path.resolve(argument));
const RUNS = 50;
const address = pathToFileURL(file).href;
mkdirSync(pictures, { recursive: true });

let browser;
let context;
let page;
const requests = [];
const faults = [];

// A page on which everything that is asked of a network, or fails, is written down.
async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.on("request", (request) => requests.push(request.url()));
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) faults.push(message.text());
  });
  await page.goto(address, { waitUntil: "load" });
  await page.waitForSelector("html[data-ready]");
  return { context, page };
}

before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  ({ context, page } = await open());
});

after(async () => {
  await browser?.close();
});

const figure = (id) => page.locator(`#figure-${id}`);
const lines = (id) => figure(id).locator(".plot g.series");
const column = (index) => page.locator(`#overview-table tbody tr td:nth-child(${index})`).allTextContents();
const shot = (name, options = {}) => page.screenshot({ path: path.join(pictures, `${name}.png`), ...options });

// Nothing serious, in this state of the page.
async function accessible(page, what, narrow = (axe) => axe) {
  const { violations } = await narrow(new AxeBuilder({ page })).analyze();
  const grave = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
  const told = grave.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => `${html} ${failureSummary}`).join(" | ")}`);
  assert.deepEqual(told, [], what);
  console.log(`axe, ${what}: ${violations.length} lesser findings ${violations.map(({ id }) => id).join(" ")}`);
}

test("fifty runs are under five megabytes and open in under two seconds", async () => {
  const { size } = statSync(file);
  assert.ok(size < 5e6, `${size} bytes`);
  const times = [];
  for (let turn = 0; turn < 3; turn += 1) {
    const start = performance.now();
    const opened = await open();
    await opened.page.waitForSelector("#overview-table tbody tr");
    times.push(performance.now() - start);
    const inside = await opened.page.evaluate(() => {
      const [load] = performance.getEntriesByType("navigation");
      return [load.domInteractive, load.domContentLoadedEventEnd];
    });
    console.log(`opened in ${times.at(-1).toFixed(0)} ms, context and all; parsed and run after ${inside.map((time) => time.toFixed(0)).join(" and ")} ms`);
    await opened.context.close();
  }
  assert.ok(Math.min(...times) < 2000, `${times}`);
  console.log(`${size} bytes`);
});

test("every run has its row", async () => {
  assert.equal(await page.locator("#overview-table tbody tr").count(), RUNS);
  assert.equal(await page.locator("details.run").count(), RUNS);
  const labels = await page.locator("#overview-table tbody th").allTextContents();
  assert.equal(new Set(labels).size, RUNS);
});

test("the table sorts by a column, both ways", async () => {
  const heads = await page.locator("#overview-table thead th").allTextContents();
  const index = heads.findIndex((head) => head.startsWith("Accuracy (%)")) + 1;
  assert.ok(index > 0, `${heads}`);
  const cells = async () => (await page.locator(`#overview-table tbody tr > :nth-child(${index})`).allTextContents()).map(Number);
  const sort = page.getByRole("button", { name: "Accuracy (%)", exact: true });
  await sort.click();
  const up = await cells();
  assert.deepEqual(up, up.toSorted((a, b) => a - b));
  await sort.press("Enter");
  const down = await cells();
  assert.deepEqual(down, up.toSorted((a, b) => b - a));
  assert.equal(await page.locator("th[aria-sort]").count(), 1);
  assert.equal(await page.locator("th[aria-sort]").getAttribute("aria-sort"), "descending");
});

test("the filter lists runs by name and by configuration", async () => {
  const listed = () => page.locator("#overview-table tbody tr:visible").count();
  const filter = page.getByRole("searchbox");
  await filter.fill("fedprox");
  assert.equal(await listed(), 5);
  await filter.fill("seed = 3");
  assert.equal(await listed(), 10);
  await filter.fill("seed = 3 privacy.epsilon");
  assert.equal(await listed(), 3);
  await filter.fill("");
  assert.equal(await listed(), RUNS);
});

test("runs are shown and hidden everywhere", async () => {
  await figure("accuracy").scrollIntoViewIfNeeded();
  await lines("accuracy").first().waitFor();
  // Ten settings: the seeds of each are one series with a range.
  assert.equal(await lines("accuracy").count(), 10);
  assert.equal(await figure("accuracy").locator(".range").count(), 10);
  await page.getByLabel(/^Runs that differ in the seed alone/).uncheck();
  assert.equal(await lines("accuracy").count(), RUNS);
  await page.getByRole("searchbox").fill("seed = 1");
  await page.getByRole("button", { name: "Show only the listed" }).click();
  assert.equal(await lines("accuracy").count(), 10);
  await page.getByRole("searchbox").fill("");
  await page.getByRole("checkbox", { name: /^Show fedprox.*seed 1/ }).uncheck();
  assert.equal(await lines("accuracy").count(), 9);
  await page.getByRole("checkbox", { name: /^Show fedprox.*seed 1/ }).check();
});

test("columns can be chosen", async () => {
  await page.getByText("Columns", { exact: true }).click();
  const head = page.locator('th[data-column="parameters"]');
  const before = await head.isVisible();
  await page.getByRole("checkbox", { name: "Parameters" }).click();
  assert.equal(await head.isVisible(), !before);
  await page.getByRole("checkbox", { name: "Parameters" }).click();
  await page.getByText("Columns", { exact: true }).click();
});

test("a series is toggled by mouse", async () => {
  const first = figure("accuracy").locator(".legend button").first();
  await first.click();
  assert.equal(await first.getAttribute("aria-pressed"), "false");
  assert.equal(await lines("accuracy").count(), 9);
  await first.click();
  assert.equal(await lines("accuracy").count(), 10);
  await first.click({ modifiers: ["Shift"] });
  assert.equal(await lines("accuracy").count(), 1);
  await figure("accuracy").getByRole("button", { name: /^Show all series/ }).click();
  assert.equal(await lines("accuracy").count(), 10);
});

test("a series is toggled by keyboard", async () => {
  await figure("accuracy").locator(".legend button").first().focus();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Space");
  assert.equal(await lines("accuracy").count(), 9);
  const focused = await page.evaluate(() => document.activeElement.getAttribute("aria-pressed"));
  assert.equal(focused, "false");
  await page.keyboard.press("Space");
  assert.equal(await lines("accuracy").count(), 10);
  // The legend is one stop of the Tab key.
  assert.equal(await figure("accuracy").locator('.legend button[tabindex="0"]').count(), 1);
});

const ticksOf = (id) => figure(id).locator(".plot text").allTextContents();

test("a plot is enlarged by dragging and reset by a double click", async () => {
  const plot = figure("accuracy").locator(".plot");
  await plot.scrollIntoViewIfNeeded();
  const whole = await ticksOf("accuracy");
  const box = await plot.boundingBox();
  await page.mouse.move(box.x + 0.4 * box.width, box.y + 60);
  await page.mouse.down();
  await page.mouse.move(box.x + 0.7 * box.width, box.y + 200, { steps: 4 });
  await page.mouse.up();
  assert.notDeepEqual(await ticksOf("accuracy"), whole);
  await shot("zoomed", { clip: await figure("accuracy").boundingBox() });
  await plot.dblclick();
  assert.deepEqual(await ticksOf("accuracy"), whole);
});

test("a plot is read and enlarged by keys", async () => {
  const plot = figure("accuracy").locator(".plot");
  const readout = figure("accuracy").locator(".readout");
  const whole = await ticksOf("accuracy");
  await plot.focus();
  await page.keyboard.press("Home");
  assert.match(await readout.textContent(), /communication round 0, [\d.]+ %/);
  await page.keyboard.press("End");
  assert.match(await readout.textContent(), /communication round 30, [\d.]+ %/);
  assert.equal(await readout.getAttribute("aria-live"), "polite");
  const before = await readout.textContent();
  await page.keyboard.press("ArrowDown");
  assert.notEqual(await readout.textContent(), before);
  await page.keyboard.press("+");
  assert.notDeepEqual(await ticksOf("accuracy"), whole);
  await page.keyboard.press("Shift+ArrowLeft");
  await page.keyboard.press("0");
  assert.deepEqual(await ticksOf("accuracy"), whole);
});

test("the pointer reads the nearest value", async () => {
  const marker = lines("accuracy").first().locator(".marker").last();
  await marker.hover({ force: true });
  const readout = figure("accuracy").locator(".readout");
  assert.match(await readout.textContent(), /: communication round \d+, [\d.]+ %/);
});

test("other quantities, axes and scales", async () => {
  const loss = figure("loss");
  await loss.scrollIntoViewIfNeeded();
  await loss.getByLabel("Against").selectOption("bytes");
  assert.match((await ticksOf("loss")).join(" "), /Bytes, both ways \(.B\)/);
  await loss.getByLabel("Against").selectOption("round");
  const plain = await ticksOf("loss");
  await loss.getByLabel("Logarithmic").check();
  assert.notDeepEqual(await ticksOf("loss"), plain);
  await loss.getByLabel("Logarithmic").uncheck();
  await loss.getByLabel("Quantity").selectOption("cohort_loss");
  assert.match((await ticksOf("loss")).join(" "), /seen by the cohort/);
});

test("every figure has lines and a table that unfolds", async () => {
  const ids = await page.locator(".figure").evaluateAll((figures) => figures.map(({ id }) => id.replace("figure-", "")));
  assert.deepEqual(ids, ["accuracy", "loss", "tradeoff", "epsilon", "clients", "dropouts", "timing", "costs", "secagg"]);
  for (const id of ids) {
    await figure(id).scrollIntoViewIfNeeded();
    await lines(id).first().waitFor({ state: "attached" });
    assert.ok(await lines(id).count() > 0, id);
    await figure(id).locator("details.data > summary").click();
    const rows = figure(id).locator("details.data table").first().locator("tbody tr");
    await rows.first().waitFor();
    assert.equal(await rows.count(), await lines(id).count(), id);
    assert.ok(await figure(id).locator("details.data table").last().locator("tbody tr").count() > 1, id);
  }
});

test("the baseline changes the comparison", async () => {
  const body = page.locator("#comparison-body");
  const paired = await body.locator("tbody tr").allTextContents();
  assert.ok(paired[0].includes("(baseline)"), paired[0]);
  await page.getByRole("button", { name: "Show all", exact: true }).click();
  const rows = await body.locator("tbody tr").allTextContents();
  // Ten settings with five seeds each: means and deviations of differences.
  assert.equal(rows.length, 10);
  assert.ok(rows[1].includes("(5 seeds)") && rows[1].includes("±"), rows[1]);
  await page.getByLabel("Baseline", { exact: true }).selectOption({ index: 3 });
  assert.notDeepEqual(await body.locator("tbody tr").allTextContents(), rows);
  await page.getByLabel(/^Pair runs by seed/).uncheck();
  assert.equal(await body.locator("tbody tr").count(), RUNS);
  await page.getByLabel(/^Pair runs by seed/).check();
  await page.getByLabel("Baseline", { exact: true }).selectOption({ index: 0 });
});

// By hand from the table of all runs: the mean and the deviation of the paired differences.
test("paired differences are those of the table", async () => {
  const { accuracy, text } = await page.evaluate(() => {
    const data = JSON.parse(document.getElementById("data").textContent);
    const at = data.columns.findIndex((column) => column.id === "accuracy");
    const of = (group) => data.runs.filter((run) => run.group === group).sort((a, b) => a.seed - b.seed).map((run) => run.values[at]);
    const row = document.querySelectorAll("#comparison-body tbody tr")[1];
    return { accuracy: [of(0), of(1)], text: row.cells[1].textContent };
  });
  const differences = accuracy[1].map((value, index) => value - accuracy[0][index]);
  const mean = differences.reduce((sum, value) => sum + value) / differences.length;
  const square = differences.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (differences.length - 1);
  const [, sign, found, deviation] = /^([+−]?)([\d.]+).* ± ([\d.]+)$/.exec(text);
  assert.ok(Math.abs((sign === "−" ? -1 : 1) * Number(found) - mean) < 0.0051, `${text} and ${mean}`);
  assert.ok(Math.abs(Number(deviation) - Math.sqrt(square)) < 0.0051, `${text} and ${Math.sqrt(square)}`);
});

test("two configurations side by side", async () => {
  const body = page.locator("#configurations-body");
  await page.getByLabel("First").selectOption({ label: "fedavg · seed 1" });
  await page.getByLabel("Second").selectOption({ label: "fedprox · seed 1" });
  const keys = await body.locator("tbody th").allTextContents();
  assert.ok(keys.includes("strategy.kind") && keys.includes("strategy.mu"), `${keys}`);
  assert.ok(!keys.includes("seed"));
  await page.getByLabel("Also keys that are the same").check();
  assert.ok((await body.locator("tbody th").allTextContents()).includes("seed"));
  await page.getByLabel("Also keys that are the same").uncheck();
});

test("a link unfolds its run", async () => {
  await page.locator('a[href="#run-6"]').click();
  const run = page.locator("#run-6");
  assert.equal(await run.evaluate((details) => details.open), true);
  const text = await run.textContent();
  for (const expected of ["differential privacy per client", "not covered:", "SHA-256 of data and partition", "[privacy]"]) {
    assert.ok(text.includes(expected), expected);
  }
  assert.ok(await run.locator("mark").count() > 0);
});

test("it is accessible in light, dark and narrow", async () => {
  // All tables but one are folded again, so that the colours of thousands of cells are not looked at.
  await page.locator("details.data").evaluateAll((all) => all.slice(1).forEach((details) => { details.open = false; }));
  await accessible(page, "light");
  await page.emulateMedia({ colorScheme: "dark" });
  assert.equal(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), "rgb(21, 24, 27)");
  await accessible(page, "dark", (axe) => axe.withRules("color-contrast"));
  const narrow = await open({ viewport: { width: 360, height: 740 } });
  await accessible(narrow.page, "narrow", (axe) => axe.disableRules("color-contrast"));
  const wide = await narrow.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(wide <= 0, `the page is ${wide} pixels wider than a narrow screen`);
  await narrow.page.screenshot({ path: path.join(pictures, "narrow.png") });
  await narrow.page.locator("#figure-accuracy").scrollIntoViewIfNeeded();
  await narrow.page.waitForTimeout(100);
  await narrow.page.screenshot({ path: path.join(pictures, "narrow-plot.png") });
  await narrow.context.close();
});

test("the page without JavaScript has the table", async () => {
  const { context: plain, page: bare } = await (async () => {
    const context = await browser.newContext({ javaScriptEnabled: false });
    return { context, page: await context.newPage() };
  })();
  await bare.goto(address);
  assert.equal(await bare.locator("#overview-table tbody tr").count(), RUNS);
  assert.ok(await bare.locator(".notice").isVisible());
  await plain.close();
});

test("pictures of the page", async () => {
  for (const [name, scheme] of [["light", "light"], ["dark", "dark"]]) {
    const opened = await open({ colorScheme: scheme });
    await opened.page.screenshot({ path: path.join(pictures, `${name}.png`) });
    for (const id of ["plots", "figure-accuracy", "figure-tradeoff", "figure-epsilon", "figure-clients", "figure-dropouts", "figure-timing", "figure-costs", "figure-secagg", "comparison", "configurations", "run-6"]) {
      const part = opened.page.locator(`#${id}`);
      await part.evaluate((element) => {
        if (element instanceof HTMLDetailsElement) element.open = true;
        element.scrollIntoView();
      });
      await opened.page.waitForTimeout(150);
      await opened.page.screenshot({ path: path.join(pictures, `${name}-${id}.png`) });
    }
    await opened.context.close();
  }
  const printed = await open();
  await printed.page.evaluate(() => window.dispatchEvent(new Event("beforeprint")));
  await printed.page.pdf({ path: path.join(pictures, "print.pdf"), format: "A4" });
  await printed.page.emulateMedia({ media: "print" });
  await printed.page.screenshot({ path: path.join(pictures, "print.png"), fullPage: true });
  await printed.context.close();
});

test("nothing was asked of a network, and nothing failed", async () => {
  assert.deepEqual(requests.filter((url) => url !== address && !url.startsWith(`${address}#`)), []);
  assert.deepEqual(faults, []);
  await context.close();
});
