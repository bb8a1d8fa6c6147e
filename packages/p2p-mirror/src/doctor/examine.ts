import type { DoctorReport, Finding } from "../status.ts";
import { CannotTell, type Check, type Subject } from "./check.ts";

/** Makes the checks one after the other: what one of them does is not to disturb another. */
export async function examine(
  checks: readonly Check[],
  subject: Subject,
  { signal, now }: { readonly signal: AbortSignal; readonly now: () => number },
): Promise<DoctorReport> {
  const findings: Finding[] = [];
  const skipped: { check: string; why: string }[] = [];
  for (const one of checks) {
    const { name } = one;
    try {
      for (const finding of await one.find(subject, signal)) findings.push({ check: name, ...finding });
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof CannotTell)) throw error;
      skipped.push({ check: name, why: error.message });
    }
  }
  return { checkedAt: new Date(now()).toISOString(), findings, skipped };
}
