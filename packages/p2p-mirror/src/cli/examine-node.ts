import type { MirrorConfig } from "../config/mirror-config.ts";
import { CHECKS } from "../doctor/checks.ts";
import { examine } from "../doctor/examine.ts";
import { doctorSettings } from "../doctor/settings.ts";
import { createSubject } from "../doctor/subject.ts";
import type { DoctorReport, MirrorStatus } from "../status.ts";
import { fetchStatus } from "./admin-client.ts";
import { CommandFailure } from "./failure.ts";

/** All checks, of the node this runs on. */
export async function examineNode(
  config: MirrorConfig,
  urls: { readonly admin: string; readonly mirror: string },
  signal: AbortSignal,
): Promise<DoctorReport> {
  const status = async (): Promise<MirrorStatus | undefined> => {
    try {
      return await fetchStatus(urls.admin, signal);
    } catch (error) {
      if (error instanceof CommandFailure) return undefined;
      throw error;
    }
  };
  const subject = createSubject(doctorSettings(config, urls.mirror), status);
  try {
    const report = await examine(CHECKS, subject, { signal, now: () => Date.now() });
    if ((await status()) !== undefined) return report;
    const finding = {
      check: "mirror",
      severity: "broken" as const,
      what: `no mirror answers at ${urls.admin}`,
      why: "containerd asks the registries itself",
      fix: "start one with p2p-mirror serve, or give --admin URL of the one that runs",
    };
    return { ...report, findings: [finding, ...report.findings] };
  } finally {
    subject.close();
  }
}
