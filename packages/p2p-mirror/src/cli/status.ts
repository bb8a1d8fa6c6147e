import type { MirrorStatus } from "../status.ts";
import { renderFindings } from "./findings.ts";
import { flightLine, renderFlight } from "./flights.ts";
import { formatAge, formatBytes, plain, shortDigest } from "./format.ts";
import { renderHosts } from "./hosts-table.ts";
import type { Speeds } from "./speeds.ts";
import { renderTable } from "./table.ts";

const SHOWN_IMAGES = 10;

/** The `status` command's text. `now` in milliseconds since the epoch. */
export function renderStatus(status: MirrorStatus, now: number, speeds: Speeds = new Map()): string {
  const { node, cache } = status;
  const containerd = node.containerd === undefined ? "none" : node.containerd;
  const where = (node.zone ?? "") === "" ? "" : `; zone ${plain(node.zone ?? "")}`;
  const sections = [
    [
      `node ${plain(node.id)}`,
      `${node.ready ? "ready" : "not ready"}, version ${plain(node.version)}, up ${formatAge(node.startedAt, now)}`,
      `peers reach it at ${plain(node.advertised)}; access ${plain(node.access)}; containerd ${plain(containerd)}${where}`,
      `cache ${formatBytes(cache.bytes)} of ${formatBytes(cache.maxBytes)} in ${cache.blobs} blobs, ${formatBytes(cache.freeBytes)} free on its disk`,
      ...limitLines(status.limits),
      "",
    ].join("\n"),
    section(
      "peers",
      ["PEER", "ADDRESS", "ZONE", "LATENCY", "STATE", "VERSION"],
      status.peers.map(({ id, address, zone = "", latencyMs, state, version = "" }) => [
        id,
        address,
        zone,
        latencyMs === undefined ? "" : `${latencyMs} ms`,
        state,
        version,
      ]),
    ) + bootstrapLines(status),
    status.flights.length === 0
      ? "no flights\n"
      : status.flights.map((flight) => renderFlight(flight, speeds.get(flight.digest))).join(""),
    ...renderFindings(status.doctor?.findings ?? []),
    section(
      "upstreams",
      ["REGISTRY", "STATE", "REQUESTS LEFT", "ASKED AGAIN", "ERROR"],
      status.upstreams.map((upstream) => [
        upstream.host === undefined ? upstream.registry : `${upstream.registry} at ${upstream.host}`,
        upstream.state,
        upstream.remaining === undefined ? "" : String(upstream.remaining),
        upstream.retryAt ?? "",
        upstream.error ?? "",
      ]),
    ),
    ...(status.hosts === undefined || status.hosts.length === 0 ? [] : [renderHosts(status.hosts)]),
    renderHeld(status, now),
    ...(status.swarm.banned.length === 0
      ? []
      : [
          renderTable(
            ["SIGNED WRONG HASHES, NOT BELIEVED ANY MORE"],
            status.swarm.banned.map((id) => [id]),
          ),
        ]),
  ];
  return sections.join("\n");
}

const bootstrapLines = ({ bootstrap = [] }: MirrorStatus): string =>
  bootstrap
    .map(({ address, reason }) => `bootstrap ${plain(address)} leads nowhere: ${plain(reason)}\n`)
    .join("");

/** One line with what is limited, or none. */
function limitLines(limits: MirrorStatus["limits"]): string[] {
  const texts = (["upstream", "in", "out"] as const).flatMap((direction) => {
    const limit = limits[direction];
    if (limit === undefined) return [];
    const held = limit.held === 0 ? "" : ` (${limit.held} waiting)`;
    return `${direction} ${formatBytes(limit.bytesPerSecond)}/s${held}`;
  });
  return texts.length === 0 ? [] : [`limits: ${texts.join(", ")}`];
}

/** What `status --watch` says to a log: a line for each flight, or one. */
export function statusLines(status: MirrorStatus, now: number, speeds: Speeds): string {
  const { flights, peers, cache, swarm } = status;
  const time = new Date(now).toISOString();
  const banned = swarm.banned.length === 0 ? "" : `, ${swarm.banned.length} not believed any more`;
  const lines =
    flights.length === 0
      ? [`no flights; ${peers.length} peers${banned}; cache ${formatBytes(cache.bytes)}`]
      : flights.map((flight) => flightLine(flight, speeds.get(flight.digest)));
  return lines.map((line) => `${time} ${line}\n`).join("");
}

function section(name: string, head: readonly string[], rows: readonly (readonly string[])[]): string {
  return rows.length === 0 ? `no ${name}\n` : renderTable(head, rows);
}

/** The images that were resolved last, as many as leave room for the rest. */
function renderHeld(status: MirrorStatus, now: number): string {
  const newest = status.images.toSorted((a, b) => b.resolvedAt.localeCompare(a.resolvedAt));
  const left = newest.length - SHOWN_IMAGES;
  const more = left > 0 ? `and ${left} more; p2p-mirror ls has them\n` : "";
  return renderImages({ images: newest.slice(0, SHOWN_IMAGES) }, now) + more;
}

/** The `ls` command's text: what this node holds, by tag. */
export function renderImages({ images }: Pick<MirrorStatus, "images">, now: number): string {
  if (images.length === 0) return "no images\n";
  return renderTable(
    ["IMAGE", "DIGEST", "SIZE", "RESOLVED"],
    images.map((image) => [
      image.reference,
      shortDigest(image.digest),
      image.size === undefined ? "" : formatBytes(image.size),
      formatAge(image.resolvedAt, now),
    ]),
  );
}
