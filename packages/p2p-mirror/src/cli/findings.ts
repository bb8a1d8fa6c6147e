import type { Finding } from "../status.ts";
import { plain } from "./format.ts";

/** A paragraph for each thing that is wrong, those that matter first: what, why, and the change, which may be several lines. */
export function renderFindings(findings: readonly Finding[]): string[] {
  return findings
    .toSorted((a, b) => a.severity.localeCompare(b.severity))
    .map(
      ({ check, severity, what, why, fix }) =>
        `${severity}: ${plain(what)} [${plain(check)}]\n` +
        `  why it matters: ${plain(why)}\n` +
        `  what to do: ${fix.split("\n").map(plain).join("\n")}\n`,
    );
}
