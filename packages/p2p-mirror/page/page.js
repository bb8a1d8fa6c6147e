import { SECTIONS } from "./sections.js";

/** @typedef {import("../src/status.ts").MirrorStatus} Status */

/** The whole status; events bring the parts of it that changed. @type {Partial<Status>} */
let status = {};

/** What each flight had when the event before came. @type {{ at: number, received: ReadonlyMap<string, number> }} */
let before = { at: 0, received: new Map() };

const events = new EventSource("events");
events.addEventListener("status", ({ data }) => {
  status = { ...status, ...JSON.parse(data) };
  show("live", "on");
  // A mirror that is starting has nothing to say yet.
  if (!isWhole(status)) return;
  const speeds = speedsOf(status.flights);
  for (const [id, render] of Object.entries(SECTIONS)) fill(id, render(status, speeds));
  document.title = `p2p-mirror …${status.node.id.slice(-8)}`;
});
// The browser tries again by itself; the first event after that has everything.
events.addEventListener("error", () => show("no connection; what is shown is old", "off"));

/** @param {Partial<Status>} some @returns {some is Status} */
function isWhole(some) {
  return some.node !== undefined;
}

/** @param {string} text @param {"on" | "off"} kind */
function show(text, kind) {
  const live = byId("live");
  live.textContent = text;
  live.className = kind;
}

/** What looks as before is left as it is, with what somebody has selected in it. @param {string} id @param {Node[]} children */
function fill(id, children) {
  const section = byId(id);
  const same =
    section.childNodes.length === children.length &&
    children.every((child, at) => child.isEqualNode(section.childNodes[at] ?? null));
  if (!same) section.replaceChildren(...children);
}

/** @param {string} id */
function byId(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found;
}

/** Bytes per second since the event before. @param {Status["flights"]} flights @returns {Map<string, number>} */
function speedsOf(flights) {
  const at = performance.now();
  const received = new Map(flights.map((flight) => [flight.digest, flight.received]));
  const seconds = (at - before.at) / 1000;
  const speeds = new Map();
  for (const [digest, bytes] of received) {
    const then = before.received.get(digest);
    if (then !== undefined && seconds > 0) speeds.set(digest, Math.max(0, bytes - then) / seconds);
  }
  before = { at, received };
  return speeds;
}
