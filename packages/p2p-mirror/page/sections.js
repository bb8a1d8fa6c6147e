import { element, list, mark, section, table } from "./elements.js";
import { count, formatAge, formatBytes, shortDigest, shortId } from "./format.js";

/** @typedef {import("../src/status.ts").MirrorStatus} Status */

/** More rows are for `p2p-mirror ls` and `status --json`. */
const MAX_ROWS = 200;

/** What each section of the page shows, by its id. */
export const SECTIONS = {
  node: renderNode,
  doctor: renderDoctor,
  flights: renderFlights,
  peers: renderPeers,
  upstreams: renderUpstreams,
  hosts: renderHosts,
  held: renderHeld,
};

/** @param {Status} status */
function renderNode({ node, limits }) {
  const limited = Object.entries(limits).map(
    ([direction, { bytesPerSecond, held }]) =>
      `${direction} ${formatBytes(bytesPerSecond)}/s${held === 0 ? "" : ` (${held} waiting)`}`,
  );
  return [
    list([
      ["node", mark(node.id, "mono")],
      ["state", node.ready ? mark("ready", "good") : mark("not ready", "bad")],
      ["version", node.version],
      ["up", formatAge(node.startedAt)],
      ["peers reach it at", mark(node.advertised, "mono")],
      ["zone", node.zone || "not known"],
      ["access", node.access],
      [
        "containerd",
        node.containerd === "unreachable" ? mark("unreachable", "bad") : (node.containerd ?? "none"),
      ],
      ["asked since its start", count(node.requests ?? 0, "time")],
      limited.length === 0 ? undefined : ["limits", limited.join(", ")],
    ]),
  ];
}

/** @param {Status} status */
function renderDoctor({ doctor }) {
  if (doctor === undefined) return section("Doctor", "has not looked yet");
  if (doctor.findings.length === 0)
    return section("Doctor", "", mark(`nothing is wrong, ${formatAge(doctor.checkedAt)} ago`, "good"));
  return section(
    "Doctor",
    `looked ${formatAge(doctor.checkedAt)} ago`,
    ...doctor.findings.map(({ check, severity, what, why, fix }) =>
      element(
        "div",
        { class: "finding" },
        element("p", {}, mark(`${severity}: ${what}`, severity === "broken" ? "bad" : "warn", check)),
        element("p", { class: "quiet" }, why),
        element("p", {}, fix),
      ),
    ),
  );
}

/** @param {Status} status @param {ReadonlyMap<string, number>} speeds */
function renderFlights({ flights }, speeds) {
  if (flights.length === 0) return section("Flights", "none: nothing is being fetched");
  return section(
    "Flights",
    String(flights.length),
    ...flights.map((flight) => renderFlight(flight, speeds.get(flight.digest))),
  );
}

/** @param {Status["flights"][number]} flight @param {number | undefined} speed bytes per second */
function renderFlight(flight, speed) {
  const { digest, size, received, fromUpstream, fromPeers, readers, sources, swarm } = flight;
  const share = size <= 0 ? 1 : Math.min(1, received / size);
  const percent = Math.floor(share * 100);
  // What was fetched twice is here once.
  const fetched = Math.max(1, fromUpstream + fromPeers);
  /** @param {string} kind @param {number} bytes */
  const part = (kind, bytes) => {
    const bar = element("span", { class: kind });
    bar.style.width = `${(bytes / fetched) * share * 100}%`;
    return bar;
  };
  /** @param {"peer" | "upstream"} kind */
  const names = (kind) =>
    sources.filter((one) => one.kind === kind).map(({ id }) => (kind === "peer" ? shortId(id) : id));
  return element(
    "div",
    { class: "flight" },
    element(
      "p",
      {},
      mark(shortDigest(digest), "mono", digest),
      ` ${percent} % of ${formatBytes(size)}${speed === undefined ? "" : `, ${formatBytes(speed)}/s`}, ${count(readers, "reader")}`,
    ),
    element(
      "div",
      {
        class: "bar",
        role: "progressbar",
        "aria-valuenow": String(percent),
        "aria-valuemin": "0",
        "aria-valuemax": "100",
        "aria-label": shortDigest(digest),
      },
      part("upstream", fromUpstream),
      part("peers", fromPeers),
    ),
    element(
      "p",
      { class: "quiet" },
      origin("upstream", `upstream ${formatBytes(fromUpstream)}`, names("upstream")),
      " ",
      origin("peers", `peers ${formatBytes(fromPeers)}`, names("peer")),
    ),
    ...(swarm === undefined ? [] : [element("p", { class: "quiet" }, swarmText(swarm))]),
  );
}

/** @param {string} kind @param {string} text @param {string[]} working */
const origin = (kind, text, working) =>
  element(
    "span",
    { class: `key ${kind}` },
    `${text}${working.length === 0 ? "" : ` (${working.join(", ")})`}`,
  );

/** @param {NonNullable<Status["flights"][number]["swarm"]>} swarm */
function swarmText({ coordinator, alone, neighbours, leases }) {
  const leased = leases.reduce((sum, { start, end }) => sum + end - start, 0);
  const by =
    coordinator === undefined
      ? alone
        ? "nobody coordinates"
        : "looking for the coordinator"
      : coordinator.self
        ? `coordinated by this node, ${count(coordinator.members ?? 0, "member")}`
        : `coordinated by ${shortId(coordinator.id)}`;
  const held =
    leases.length === 0 ? "no lease" : `${count(leases.length, "lease")} of ${formatBytes(leased)}`;
  return `${by}; ${count(neighbours.length, "neighbour")}; ${held}`;
}

/** @type {Record<string, "good" | "bad" | "warn">} */
const PEER_STATES = { up: "good", broken: "bad", refuted: "bad" };

/** @param {Status} status */
function renderPeers({ peers, bootstrap = [], swarm, node }) {
  return section(
    "Peers",
    String(peers.length),
    ...(peers.length === 0
      ? []
      : [
          table(
            ["peer", "address", "zone", "latency", "state", "version"],
            peers
              .slice(0, MAX_ROWS)
              .map(({ id, address, zone = "", latencyMs, state, version = "" }) => [
                mark(shortId(id), "mono", id),
                mark(address, "mono"),
                zone !== "" && zone !== (node.zone ?? "") ? mark(zone, "warn", "another zone") : zone,
                latencyMs === undefined ? "" : `${latencyMs} ms`,
                mark(state, PEER_STATES[state] ?? "quiet"),
                version,
              ]),
          ),
        ]),
    ...more(peers.length),
    ...bootstrap.map(({ address, reason }) =>
      element("p", { class: "warn" }, `bootstrap ${address} leads nowhere: ${reason}`),
    ),
    ...swarm.banned.map((id) =>
      element("p", { class: "bad" }, `${id} signed wrong hashes, and is not believed any more`),
    ),
  );
}

/** @type {Record<string, "good" | "bad" | "warn">} */
const UPSTREAM_STATES = { ok: "good", unreachable: "bad", "rate-limited": "warn" };

/** @param {Status} status */
function renderUpstreams({ upstreams }) {
  if (upstreams.length === 0) return section("Upstreams", "none was asked yet");
  return section(
    "Upstreams",
    String(upstreams.length),
    table(
      ["registry", "host", "state", "left", "asked again", "error"],
      upstreams.map(({ registry, host = "", state, remaining, retryAt, error = "" }) => [
        registry,
        host,
        mark(state, UPSTREAM_STATES[state] ?? "quiet"),
        remaining === undefined ? "" : String(remaining),
        retryAt === undefined ? "" : new Date(retryAt).toLocaleTimeString(),
        error,
      ]),
    ),
  );
}

/** @param {Status} status */
function renderHosts({ hosts }) {
  if (hosts === undefined) return section("hosts.toml", "not looked after: no hosts_dir is set");
  return section(
    "hosts.toml",
    count(hosts.length, "directory").replace(/ys$/, "ies"),
    table(
      ["directory", "mirror", "containerd asks"],
      hosts.map(({ directory, inForce, managed, asks, problem, notUnderstood }) => [
        mark(directory, "mono"),
        inForce
          ? mark(managed ? "first" : "first, by hand", "good")
          : mark(managed ? "not first" : "no", "bad"),
        problem ??
          asks.join(", then ") +
            (notUnderstood === undefined ? "" : ` (the mirror does not: ${notUnderstood})`),
      ]),
    ),
  );
}

/** @param {Status} status */
function renderHeld({ cache, images }) {
  const share = cache.maxBytes <= 0 ? 0 : Math.min(1, cache.bytes / cache.maxBytes);
  const used = element("span", { class: "peers" });
  used.style.width = `${share * 100}%`;
  return section(
    "Held",
    `${count(cache.blobs, "blob")}, ${formatBytes(cache.bytes)} of ${formatBytes(cache.maxBytes)}; ${formatBytes(cache.freeBytes)} free on its disk`,
    element("div", { class: "bar" }, used),
    ...(images.length === 0
      ? []
      : [
          table(
            ["image", "digest", "size", "resolved"],
            images
              .slice(0, MAX_ROWS)
              .map(({ reference, digest, size, resolvedAt }) => [
                reference,
                mark(shortDigest(digest), "mono", digest),
                size === undefined ? "" : formatBytes(size),
                `${formatAge(resolvedAt)} ago`,
              ]),
          ),
        ]),
    ...more(images.length),
  );
}

/** @param {number} rows */
const more = (rows) =>
  rows <= MAX_ROWS ? [] : [element("p", { class: "quiet" }, `and ${rows - MAX_ROWS} more`)];
