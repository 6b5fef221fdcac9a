// Where the page's data is: with the program that serves it, or in the page itself, which was opened from disk.

import { Disk } from "./disk.js";
import { Server } from "./server.js";

/** What answers the page's questions. */
export function openSource() {
  return document.getElementById("data-about") ? new Disk() : new Server();
}
