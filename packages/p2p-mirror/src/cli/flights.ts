import type { FlightStatus, FlightSwarmStatus } from "../status.ts";
import { formatBytes, plain, shortDigest, shortId } from "./format.ts";

const BAR = 30;

/** A flight for a terminal: a bar and what stands behind it, in lines of at most 100 characters. */
export function renderFlight(flight: FlightStatus, bytesPerSecond: number | undefined): string {
  const { fromUpstream, fromPeers, readers } = flight;
  const speed = bytesPerSecond === undefined ? "" : `, ${formatBytes(bytesPerSecond)}/s`;
  const lines = [
    `${plain(shortDigest(flight.digest))} [${bar(share(flight))}] ${percent(flight)} of ${formatBytes(flight.size)}${speed}, ${count(readers, "reader")}`,
    `  from upstream ${formatBytes(fromUpstream)}${atWork(flight, "upstream")}; from peers ${formatBytes(fromPeers)}${atWork(flight, "peer")}`,
  ];
  if (flight.swarm !== undefined) lines.push(`  ${swarmText(flight.swarm)}`);
  return lines.map((line) => `${line}\n`).join("");
}

/** The same in one line, for a log. */
export function flightLine(flight: FlightStatus, bytesPerSecond: number | undefined): string {
  const { size, fromUpstream, fromPeers, swarm } = flight;
  return [
    `${plain(shortDigest(flight.digest))} ${percent(flight).trim()} of ${formatBytes(size)}`,
    ...(bytesPerSecond === undefined ? [] : [`${formatBytes(bytesPerSecond)}/s`]),
    `from upstream ${formatBytes(fromUpstream)}${atWork(flight, "upstream")}`,
    `from peers ${formatBytes(fromPeers)}${atWork(flight, "peer")}`,
    ...(swarm === undefined ? [] : [swarmText(swarm)]),
  ].join("; ");
}

function swarmText({ coordinator, alone, neighbours, leases }: FlightSwarmStatus): string {
  const leased = leases.reduce((sum, { start, end }) => sum + end - start, 0);
  return [
    coordinatorText(coordinator, alone),
    count(neighbours.length, "neighbour"),
    leases.length === 0 ? "no lease" : `${count(leases.length, "lease")} of ${formatBytes(leased)}`,
  ].join("; ");
}

function coordinatorText(coordinator: FlightSwarmStatus["coordinator"], alone: boolean): string {
  if (coordinator === undefined) return alone ? "nobody coordinates" : "looking for the coordinator";
  if (!coordinator.self) return `coordinated by ${plain(shortId(coordinator.id))}`;
  const { members } = coordinator;
  return `coordinated by this node${members === undefined ? "" : `, ${count(members, "member")}`}`;
}

/** ` (2 at work)`, or nothing. */
function atWork({ sources }: FlightStatus, kind: FlightStatus["sources"][number]["kind"]): string {
  const number = sources.filter((source) => source.kind === kind).length;
  return number === 0 ? "" : ` (${number} at work)`;
}

const share = ({ received, size }: FlightStatus): number =>
  size <= 0 ? 1 : Math.min(1, Math.max(0, received / size));

/** 100 % is said when the last byte is here, not before. */
const percent = (flight: FlightStatus): string => `${Math.floor(share(flight) * 100)}%`.padStart(4);

const bar = (part: number): string => "=".repeat(Math.floor(part * BAR)).padEnd(BAR);

const count = (number: number, noun: string): string => `${number} ${noun}${number === 1 ? "" : "s"}`;
