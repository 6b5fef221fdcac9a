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
  about() { return asked("/api/about"); }

  places() { return asked("/api/places"); }

  status() { return asked("/api/status"); }

  startUmap() { return asked("/api/umap", null, { method: "POST" }); }

  reopen() { return asked("/api/reopen", null, { method: "POST" }); }

  /** Uint16Array [2 n]: x and y of each recording. */
  async map(kind) {
    return new Uint16Array(await (await answered("/api/map", { kind })).arrayBuffer());
  }

  /** What a column is, and its values as a typed array. */
  async column(name) {
    const bytes = await (await answered("/api/column", { name })).arrayBuffer();
    const length = new DataView(bytes).getUint32(0, true);
    const about = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
    const Kind = about.kind === "category" ? Uint8Array : Float32Array;
    return { ...about, name, values: new Kind(bytes, 4 + length) };
  }

  /** A bit for each recording for which a condition is true. */
  async filter(expression) {
    const answer = await answered("/api/filter", null, { method: "POST", body: expression });
    return new Uint8Array(await answer.arrayBuffer());
  }

  search(text) { return asked("/api/search", { text }); }

  select(bits) { return asked("/api/selection", null, { method: "POST", body: bits }); }

  composition(selection) { return asked("/api/composition", { selection }); }

  rows(selection, first) { return asked("/api/rows", { selection, first }); }

  /** The address of a selection as a file. */
  saved(selection, format) { return `/api/save?${new URLSearchParams({ selection, format })}`; }

  name(row) { return asked("/api/name", { row }); }

  recording(row) { return asked("/api/recording", { row }); }

  neighbours(row) { return asked("/api/neighbours", { row }); }

  ecg(row) { return asked("/api/ecg", { row }); }

  evidence(row) { return asked("/api/evidence", { row }); }

  failures(text, first) { return asked("/api/failures", { text, first }); }
}
