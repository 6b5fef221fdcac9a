// Finding recordings by their names and identifiers.

import { button, count, element, table, tell } from "./dom.js";

/** Look for a text, and list what was found; one that is the only one is opened. */
export async function showFound(place, text, atlas, about) {
  if (!text.trim()) return;
  let told;
  try {
    told = await atlas.server.search(text.trim());
  } catch (error) {
    tell(error.message);
    return;
  }
  const several = about.runs.length > 1;
  const header = ["recording", ...(several ? ["run"] : []), "found by", ""];
  const rows = told.found.map((each) => [button(each.record, () => atlas.open(each.row), { class: "link" }),
    ...(several ? [each.run] : []), each.by, each.by === "record" ? "" : each.text]);
  const isAll = told.total === rows.length;
  const shown = isAll ? `${count(told.total)} found` : `The first ${count(rows.length)} of ${count(told.total)}`;
  const nothing = "No recording on the map has this name or identifier. Failed ones are under Failures.";
  place.replaceChildren(element("h2", null, `Search: ${text.trim()}`),
    rows.length ? table(shown, header, rows) : element("p", null, nothing));
  tell(shown);
  if (told.found.length === 1) atlas.open(told.found[0].row);
}
