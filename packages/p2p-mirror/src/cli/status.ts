import type { MirrorStatus } from "../status.ts";
import { formatAge, formatBytes, plain, shortDigest } from "./format.ts";
import { renderTable } from "./table.ts";

/** The `status` command's text. `now` in milliseconds since the epoch. */
export function renderStatus(status: MirrorStatus, now: number): string {
  const { node, cache } = status;
  const containerd = node.containerd === undefined ? "none" : node.containerd;
  const sections = [
    [
      `node ${plain(node.id)}`,
      `${node.ready ? "ready" : "not ready"}, version ${plain(node.version)}, up ${formatAge(node.startedAt, now)}`,
      `peers reach it at ${plain(node.advertised)}; access ${plain(node.access)}; containerd ${plain(containerd)}`,
      `cache ${formatBytes(cache.bytes)} of ${formatBytes(cache.maxBytes)} in ${cache.blobs} blobs, ${formatBytes(cache.freeBytes)} free on its disk`,
      "",
    ].join("\n"),
    section(
      "peers",
      ["PEER", "ADDRESS", "STATE"],
      status.peers.map((peer) => [peer.id, peer.address, peer.state]),
    ),
    section(
      "flights",
      ["DIGEST", "RECEIVED", "SIZE", "READERS", "FROM"],
      status.flights.map((flight) => [
        shortDigest(flight.digest),
        `${flight.size === 0 ? 100 : Math.floor((flight.received / flight.size) * 100)}%`,
        formatBytes(flight.size),
        String(flight.readers),
        flight.sources.join(", "),
      ]),
    ),
    section(
      "upstreams",
      ["REGISTRY", "STATE", "REQUESTS LEFT", "ASKED AGAIN"],
      status.upstreams.map((upstream) => [
        upstream.registry,
        upstream.state,
        upstream.remaining === undefined ? "" : String(upstream.remaining),
        upstream.retryAt ?? "",
      ]),
    ),
  ];
  return sections.join("\n");
}

function section(name: string, head: readonly string[], rows: readonly (readonly string[])[]): string {
  return rows.length === 0 ? `no ${name}\n` : renderTable(head, rows);
}

/** The `ls` command's text: what this node holds, by tag. */
export function renderImages(status: MirrorStatus, now: number): string {
  if (status.images.length === 0) return "no images\n";
  return renderTable(
    ["IMAGE", "DIGEST", "SIZE", "RESOLVED"],
    status.images.map((image) => [
      image.reference,
      shortDigest(image.digest),
      image.size === undefined ? "" : formatBytes(image.size),
      formatAge(image.resolvedAt, now),
    ]),
  );
}
