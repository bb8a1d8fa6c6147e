import type { HostsDirectoryStatus } from "../status.ts";
import { renderTable } from "./table.ts";

/** Whom containerd asks for the registries of each directory, in which order. */
export const renderHosts = (status: readonly HostsDirectoryStatus[]): string =>
  renderTable(
    ["DIRECTORY", "MIRROR", "CONTAINERD ASKS"],
    status.map(({ directory, inForce, managed, asks, problem, notUnderstood }) => [
      directory,
      inForce ? (managed ? "first" : "first, by hand") : managed ? "not first" : "no",
      problem ??
        asks.join(", ") + (notUnderstood === undefined ? "" : ` (the mirror does not: ${notUnderstood})`),
    ]),
  );
