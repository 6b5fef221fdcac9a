// Questions to the program that serves the page.

/** The answer to a question; a refusal is an Error with its reason. */
async function answered(path, parameters, options) {
  const query = new URLSearchParams(parameters ?? {}).toString();
  const answer = await fetch(query ? `${path}?${query}` : path, { credentials: "same-origin", ...options });
  if (answer.ok) return answer;
  const text = await answer.text();
  let reason = text.trim();
  if (answer.headers.get("Content-Type")?.startsWith("application/json")) reason = JSON.parse(text).error;
  throw new Error(reason);
}

async function asked(path, parameters, options) {
  return (await answered(path, parameters, options)).json();
}

/** The run that the program has opened. */
export class Server {
  async about() {
    const told = await asked("/api/about");
    this.opening = told.opening;
    return told;
  }

  /** An answer about this opening of the run: its rows are other recordings in another one. */
  answered(path, parameters, options) { return answered(path, { ...parameters, opening: this.opening }, options); }

  asked(path, parameters, options) { return asked(path, { ...parameters, opening: this.opening }, options); }

  places() { return this.asked("/api/places"); }

  status() { return this.asked("/api/status"); }

  startUmap() { return this.asked("/api/umap", null, { method: "POST" }); }

  reopen() { return this.asked("/api/reopen", null, { method: "POST" }); }

  /** Uint16Array [2 n]: x and y of each recording. */
  async map(kind) {
    return new Uint16Array(await (await this.answered("/api/map", { kind })).arrayBuffer());
  }

  /** What a column is, and its values as a typed array. */
  async column(name) {
    const bytes = await (await this.answered("/api/column", { name })).arrayBuffer();
    const length = new DataView(bytes).getUint32(0, true);
    const about = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
    const Kind = { 1: Uint8Array, 4: Float32Array, 8: Float64Array }[about.n_bytes];
    return { ...about, name, values: new Kind(bytes, 4 + length) };
  }

  /** A bit for each recording for which a condition is true. */
  async filter(expression) {
    const answer = await this.answered("/api/filter", null, { method: "POST", body: expression });
    return new Uint8Array(await answer.arrayBuffer());
  }

  search(text) { return this.asked("/api/search", { text }); }

  select(bits) { return this.asked("/api/selection", null, { method: "POST", body: bits }); }

  composition(selection) { return this.asked("/api/composition", { selection }); }

  rows(selection, first) { return this.asked("/api/rows", { selection, first }); }

  /** The address of a selection as a file. */
  saved(selection, format) { return `/api/save?${new URLSearchParams({ selection, format, opening: this.opening })}`; }

  name(row) { return this.asked("/api/name", { row }); }

  recording(row) { return this.asked("/api/recording", { row }); }

  neighbours(row) { return this.asked("/api/neighbours", { row }); }

  ecg(row) { return this.asked("/api/ecg", { row }); }

  evidence(row) { return this.asked("/api/evidence", { row }); }

  failures(text, first) { return this.asked("/api/failures", { text, first }); }
}
