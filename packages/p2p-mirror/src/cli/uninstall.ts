import type { Command } from "commander";
import { HOSTS_DIR_SETTING } from "../config/hosts-settings.ts";
import { MIRROR_SCHEMA } from "../config/schema.ts";
import type { GroupSchema } from "@p2p-mirror/shared/config";
import { CommandFailure } from "./failure.ts";
import { addSettings, givenSettings } from "./settings-options.ts";
import type { Terminal } from "./terminal.ts";

/** Removes what mirrors have written into a data directory; what else is in it stays. */
export type RemoveData = (dataDir: string) => Promise<{
  readonly removed: readonly string[];
  readonly left: readonly string[];
}>;

export interface UninstallDeps {
  loadRemoveData(): Promise<RemoveData>;
}

const SETTINGS = {
  type: "object",
  additionalProperties: false,
  properties: { ...HOSTS_DIR_SETTING.properties, data_dir: MIRROR_SCHEMA.properties.data_dir },
} as const satisfies GroupSchema;

interface Flags {
  readonly config?: string;
  readonly keepData?: true;
  readonly stay?: true;
}

/** `uninstall`: a node as it was before the mirror came. The mirror must have ended. */
export function addUninstall(program: Command, terminal: Terminal, deps: UninstallDeps): void {
  const command = program
    .command("uninstall")
    .description("leave this node as it was: hosts.toml files without the mirror, no data directory")
    .option("--keep-data", "keep the data directory: the cache and the node's identity")
    .option(
      "--stay",
      "do not end afterwards, but wait for a signal (for a DaemonSet, whose Pods must not end)",
    )
    .option("--config <FILE>", "the mirror's config file (default: P2P_MIRROR_CONFIG, else none)");
  addSettings(command, SETTINGS);
  command.action(async () => {
    const flags: Flags = command.opts();
    const { loadSome } = await import("../config/load.ts");
    const { values } = await loadSome(SETTINGS, {
      flags: givenSettings(command, SETTINGS),
      env: terminal.env,
      configPath: flags.config,
    });
    const say = (line: string): void => terminal.stdout.write(`${line}\n`);
    // First: on a full disk there is no room for a hosts.toml before.
    if (flags.keepData !== true) await removeData(values.dataDir, deps, say);
    if (values.hostsDir !== undefined) await removeHosts(values.hostsDir, say);
    if (flags.stay !== true) return;
    say("done; waiting for a signal");
    await ended(terminal.signal);
  });
}

async function removeData(dataDir: string, deps: UninstallDeps, say: (line: string) => void): Promise<void> {
  const { removed, left } = await (await deps.loadRemoveData())(dataDir);
  say(`${dataDir}: ${removed.length === 0 ? "nothing of the mirror's is there" : "removed"}`);
  if (left.length > 0) say(`${dataDir}: stays, with what is not the mirror's: ${left.join(", ")}`);
}

async function removeHosts(hostsDir: string, say: (line: string) => void): Promise<void> {
  const hosts = await import("../hosts/hosts.ts");
  const done = await hosts.removeHosts({ hostsDir, registries: [] });
  for (const { directory, outcome, reason } of done) {
    say(`${hostsDir}/${directory}: ${outcome}${reason === undefined ? "" : ` (${reason})`}`);
  }
  const left = done.filter(({ outcome }) => outcome === "left alone");
  if (left.length === 0) return;
  throw new CommandFailure(
    `the mirror still stands in ${left.map(({ directory }) => directory).join(", ")}, for the reason above`,
  );
}

function ended(signal: AbortSignal): Promise<void> {
  // A timer, since a promise alone does not keep the process alive.
  const alive = setInterval(() => undefined, 3_600_000);
  return new Promise((resolve) => {
    const end = (): void => {
      clearInterval(alive);
      resolve();
    };
    if (signal.aborted) end();
    else signal.addEventListener("abort", end, { once: true });
  });
}
