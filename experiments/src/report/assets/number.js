// Numbers for people: units, ticks, texts.

const UNITS = {
  bytes: [["B", 1], ["kB", 1e3], ["MB", 1e6], ["GB", 1e9], ["TB", 1e12], ["PB", 1e15]],
  seconds: [["µs", 1e-6], ["ms", 1e-3], ["s", 1], ["min", 60], ["h", 3600], ["d", 86400]],
  joules: [["J", 1], ["kJ", 1e3], ["MJ", 1e6], ["GJ", 1e9]],
};

// The unit in which numbers up to `most` are short: its name and its size.
function unitOf(kind, most) {
  if (kind === "share") return { name: "%", size: 0.01 };
  if (kind === "celsius") return { name: "°C", size: 1 };
  const units = UNITS[kind];
  if (!units) return { name: "", size: 1 };
  const [name, size] = units.findLast((unit) => most >= 2 * unit[1]) ?? units[0];
  return { name, size };
}

// So many significant digits, without a tail of zeros.
function significant(value, digits = 4) {
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "–";
  const text = Math.abs(value) >= 10 ** digits && Math.abs(value) < 1e9
    ? Math.round(value).toLocaleString("en")
    : String(Number(value.toPrecision(digits)));
  return text.replace("-", "−");
}

function inUnit(value, unit, digits = 4) {
  const text = significant(value / unit.size, digits);
  return unit.name ? `${text} ${unit.name}` : text;
}

// Round places of about `count` ticks from `low` to `high`.
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((times) => times * power).find((size) => size >= rough * 0.999);
  const places = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index += 1) {
    places.push(Number((index * step).toPrecision(12)));
  }
  return places;
}

// Powers of ten, with 2 and 5 between where there is room; where the range is short, as of a linear axis.
function logTicks(low, high) {
  const decades = Math.log10(high / low);
  if (decades < 0.7) return ticks(low, high, 5);
  const between = decades > 3 ? [1] : [1, 2, 5];
  const step = Math.max(1, Math.ceil(decades / 8));
  const places = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += step) {
    for (const times of between) {
      const place = Number(`${times}e${power}`);
      if (place >= low * 0.999 && place <= high * 1.001) places.push(place);
    }
  }
  return places;
}
