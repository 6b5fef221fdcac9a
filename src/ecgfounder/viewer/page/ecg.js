// An ECG on paper: 25 mm/s and 10 mm/mV on a grid of millimetres, and another one over it.

const SVG = "http://www.w3.org/2000/svg";
const LEAD_IN = 10, TAIL = 5, NARROWEST = 180; // millimetres, as the printed drawing has them

function shape(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A drawing of an ECG, with another one over it and bands of evidence below it if there are any; `about` says what is seen. */
export function drawEcg(ecg, about, other = null, evidence = null) {
  const traces = ecg.rows.flatMap((row) => row.traces);
  const seconds = Math.max(...traces.map((trace) => trace.place + trace.microvolts.length / ecg.sampling_rate));
  const width = Math.max(NARROWEST, LEAD_IN + Math.ceil((seconds * ecg.mm_per_second) / 5) * 5 + TAIL);
  const bandsOf = (number) => evidence?.bars[number] ?? [];
  const heights = ecg.rows.map((row, number) => row.up + row.down + bandsOf(number).length * (evidence?.height ?? 0));
  const height = heights.reduce((sum, each) => sum + each, 0);
  const drawing = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": about, class: "ecg" });
  drawing.append(...gridOf(width, height));
  let top = 0;
  ecg.rows.forEach((row, number) => {
    const baseline = top + row.up;
    drawing.append(calibration(baseline));
    for (const trace of row.traces) {
      const match = other && matching(other, trace, trace.microvolts.length / ecg.sampling_rate);
      if (match) drawing.append(lineOf(match, other, baseline, row, "trace other"));
      drawing.append(lineOf(trace, ecg, baseline, row, "trace"));
      if (trace.place > 0) drawing.append(boundary(trace, ecg, baseline));
      drawing.append(label(trace, ecg, baseline));
    }
    bandsOf(number).forEach((bars, place) => {
      const middle = top + row.up + row.down + evidence.height * (place + 0.5);
      drawing.append(...bandOf(bars, ecg, evidence, evidence.bands[place].name, middle));
    });
    top += heights[number];
  });
  return drawing;
}

/** The same seconds of the same lead in another ECG, wherever its paper has them; its first ones if it is shorter. */
function matching(other, trace, seconds) {
  const found = other.rows.flatMap((row) => row.traces).filter((each) => each.label === trace.label);
  if (!found.length) return null;
  const rate = other.sampling_rate;
  const endOf = (each) => each.start + each.microvolts.length / rate + 0.01;
  const covers = (each) => each.start <= trace.start && trace.start + seconds <= endOf(each);
  const best = found.find(covers) ?? found.reduce((one, each) => (each.microvolts.length > one.microvolts.length ? each : one));
  const first = covers(best) ? Math.round((trace.start - best.start) * rate) : 0;
  return { ...best, place: trace.place, microvolts: best.microvolts.slice(first, first + Math.round(seconds * rate)) };
}

function xOf(ecg, second) {
  return LEAD_IN + second * ecg.mm_per_second;
}

function lineOf(trace, ecg, baseline, row, kind) {
  const step = ecg.mm_per_second / ecg.sampling_rate, first = xOf(ecg, trace.place), scale = ecg.mm_per_millivolt / 1000;
  const parts = [];
  let pen = "M";
  trace.microvolts.forEach((microvolt, at) => {
    if (microvolt === ecg.gap) {
      pen = "M";
      return;
    }
    const y = baseline - Math.min(Math.max(microvolt * scale, -row.down), row.up);
    parts.push(`${pen}${(first + at * step).toFixed(2)} ${y.toFixed(2)}`);
    pen = "L";
  });
  return shape("path", { class: kind, d: parts.join("") });
}

function boundary(trace, ecg, baseline) {
  const x = xOf(ecg, trace.place);
  return shape("path", { class: "boundary", d: `M${x} ${baseline - 4}V${baseline + 4}` });
}

function label(trace, ecg, baseline) {
  const text = trace.start === trace.place ? trace.label : `${trace.label}  ${trace.start} s`;
  return shape("text", { class: "lead", x: xOf(ecg, trace.place) + 1, y: baseline - trace.height }, text);
}

/** A band: bars up for what speaks for a statement, down for what speaks against it. */
function bandOf(bars, ecg, { longest, gap }, name, middle) {
  const stop = Math.max(0, ...bars.map(([, end]) => end));
  const line = shape("path", { class: "band-line", d: `M${xOf(ecg, 0)} ${middle}H${xOf(ecg, stop)}` });
  const drawn = bars.map(([begin, end, share]) => shape("rect", {
    class: share > 0 ? "bar for" : "bar against", x: xOf(ecg, begin) + gap / 2, y: share > 0 ? middle - share * longest : middle,
    width: Math.max(0.1, (end - begin) * ecg.mm_per_second - gap), height: Math.abs(share) * longest }));
  return [line, ...drawn, shape("text", { class: "band", x: 0.5, y: middle + 1 }, name)];
}

function calibration(baseline) {
  return shape("path", { class: "trace", d: `M1 ${baseline}h1.5v-10h5v10h1.5` });
}

function gridOf(width, height) {
  const lines = { fine: [], bold: [] };
  for (let x = 0; x <= width; x++) lines[x % 5 ? "fine" : "bold"].push(`M${x} 0V${height}`);
  for (let y = 0; y <= height; y++) lines[y % 5 ? "fine" : "bold"].push(`M0 ${y}H${width}`);
  return [shape("rect", { class: "paper", width, height }),
    ...Object.entries(lines).map(([kind, parts]) => shape("path", { class: `grid ${kind}`, d: parts.join("") }))];
}
