import type { Command } from "commander";
import { brokenOf } from "../status-verdict.ts";
import type { DoctorReport } from "../status.ts";
import { renderFindings } from "./findings.ts";
import { addSettings, givenSettings } from "./settings-options.ts";
import type { ExitCode, Terminal } from "./terminal.ts";
import { DOCTOR_SETTINGS } from "../config/doctor-settings.ts";

interface Flags {
  readonly config?: string;
  readonly admin?: string;
  readonly mirror?: string;
  readonly json?: true;
}

/** `doctor`: looks at this node, and says what keeps images from coming through the mirror. */
export function addDoctor(program: Command, terminal: Terminal, exit: (code: ExitCode) => void): void {
  const doctor = program
    .command("doctor")
    .description("find what keeps images of this node from coming through the mirror, and say what to change")
    .option("--json", "print JSON")
    .option("--admin <URL>", "admin endpoint of the mirror (default: P2P_MIRROR_ADMIN, else admin_listen)")
    .option(
      "--mirror <URL>",
      "the mirror as containerd asks it (default: P2P_MIRROR_REGISTRY, else registry_listen)",
    )
    .option("--config <FILE>", "the mirror's config file (default: P2P_MIRROR_CONFIG, else none)");
  addSettings(doctor, DOCTOR_SETTINGS);
  doctor
    .addHelpText(
      "after",
      "\nSettings that are not given here are read as serve reads them. Exit code: 0 nothing is broken (there may be warnings),\n1 something is, 2 asked for wrongly.",
    )
    .action(async () => {
      const flags: Flags = doctor.opts();
      const { endpointUrl } = await import("../config/endpoints.ts");
      const { loadMirrorConfig } = await import("../config/load.ts");
      const { allAddresses } = await import("./addresses.ts");
      const request = {
        flags: givenSettings(doctor, DOCTOR_SETTINGS),
        env: terminal.env,
        configPath: flags.config,
      };
      const { config } = await loadMirrorConfig(request, { allAddresses: allAddresses() });
      const about = { flags: {}, env: terminal.env, configPath: flags.config };
      const admin = await endpointUrl("admin", { ...about, url: flags.admin });
      const mirror = await endpointUrl("registry", { ...about, url: flags.mirror, flag: "--mirror" });
      const { examineNode } = await import("./examine-node.ts");
      const report = await examineNode(config, { admin, mirror }, terminal.signal);
      terminal.stdout.write(
        flags.json === true ? `${JSON.stringify(report, undefined, 2)}\n` : renderReport(report),
      );
      exit(brokenOf(report).length > 0 ? 1 : 0);
    });
}

/** A paragraph for each finding, those that matter first. */
export function renderReport({ findings, skipped }: DoctorReport): string {
  const broken = brokenOf({ findings }).length;
  const summary =
    findings.length === 0
      ? "nothing wrong was found\n"
      : `${broken} broken, ${findings.length - broken} warnings\n`;
  const not = skipped.map(({ check, why }) => `not checked: ${check} (${why})\n`).join("");
  return [...renderFindings(findings), not + summary].join("\n");
}
