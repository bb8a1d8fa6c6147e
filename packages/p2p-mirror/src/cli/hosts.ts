import { stat } from "node:fs/promises";
import type { Command } from "commander";
import { ConfigError } from "@p2p-mirror/shared/config";

import { endpointUrl } from "../config/endpoints.ts";
import { loadSome } from "../config/load.ts";
import { HOSTS_DIR_SETTING, REGISTRIES_SETTING, withoutMirror } from "../config/hosts-settings.ts";
import type { Done, HostsOptions } from "../hosts/hosts.ts";
import { CommandFailure } from "./failure.ts";
import type { Terminal } from "./terminal.ts";

interface Flags {
  readonly hostsDir?: string;
  readonly partial?: true;
  readonly registry: readonly string[];
  readonly mirror?: string;
  readonly config?: string;
  readonly json?: true;
}

/** `hosts install|remove|status`: what stands in front of containerd. No running mirror is needed. */
export function addHosts(program: Command, terminal: Terminal): void {
  const hosts = program.command("hosts").description("have containerd ask the mirror first (hosts.toml)");
  const subcommand = (name: string, description: string): Command =>
    hosts
      .command(name)
      .description(description)
      .option(
        "--hosts-dir <DIR>",
        "containerd's config_path, like /etc/containerd/certs.d (default: the setting hosts_dir)",
      )
      .option("--config <FILE>", "the mirror's config file (default: P2P_MIRROR_CONFIG, else none)")
      .addOption(
        hosts
          .createOption("--registry <NAME>", "only this registry (repeatable)")
          .argParser((one: string, all: readonly string[]) => [...all, one])
          .default([], "_default and all that have a directory"),
      )
      .option("--json", "print JSON");
  const optionsOf = async (flags: Flags): Promise<HostsOptions> => ({
    ...(await where(flags, terminal)),
    mirror: await endpointUrl("registry", {
      url: flags.mirror,
      flag: "--mirror",
      flags: {},
      env: terminal.env,
      configPath: flags.config,
    }),
  });
  const print = async (flags: Flags, value: unknown, table: () => Promise<string>): Promise<void> =>
    terminal.stdout.write(flags.json === true ? `${JSON.stringify(value, undefined, 2)}\n` : await table());
  const report = async (flags: Flags, done: readonly Done[]): Promise<void> => {
    await print(flags, done, () => doneTable(done));
    const left = done.filter(({ outcome }) => outcome === "left alone");
    const inForce = done.some(({ outcome }) => outcome === "installed" || outcome === "unchanged");
    if (left.length === 0 || (flags.partial === true && inForce)) return;
    throw new CommandFailure(
      `left alone, for the reason above: ${left.map((one) => one.directory).join(", ")}`,
    );
  };

  withMirror(
    subcommand(
      "install",
      "put the mirror before the first host of each hosts.toml, but for registries whose settings say `mirror: false`; all else stays, byte for byte",
    ).option("--partial", "exit code 0 also when some files had to be left alone, though not all"),
  ).action(async (flags: Flags) => {
    const { installHosts } = await import("../hosts/hosts.ts");
    const options = await optionsOf(flags);
    const { values } = await loadSome(REGISTRIES_SETTING, {
      flags: {},
      env: terminal.env,
      configPath: flags.config,
    });
    const without = withoutMirror(values.registries);
    await report(flags, await installHosts({ ...options, without }));
  });
  subcommand("remove", "take the mirror out again, and what was made for it").action(async (flags: Flags) => {
    const { removeHosts } = await import("../hosts/hosts.ts");
    await report(flags, await removeHosts(await where(flags, terminal)));
  });
  withMirror(subcommand("status", "say for each registry whom containerd asks, in which order")).action(
    async (flags: Flags) => {
      const { hostsStatus } = await import("../hosts/hosts.ts");
      const status = await hostsStatus(await optionsOf(flags));
      await print(flags, status, async () => (await import("./hosts-table.ts")).renderHosts(status));
    },
  );
}

/** @throws ConfigError */
async function where(
  flags: Flags,
  { env }: Terminal,
): Promise<Pick<HostsOptions, "hostsDir" | "registries">> {
  const { registry, config: configPath } = flags;
  const given = flags.hostsDir === undefined ? {} : { hosts_dir: flags.hostsDir };
  const { values } = await loadSome(HOSTS_DIR_SETTING, { flags: given, env, configPath });
  const { hostsDir } = values;
  if (hostsDir === undefined) {
    throw new ConfigError("--hosts-dir", "", "give the directory that containerd's config_path names");
  }
  const found = await stat(hostsDir).catch(() => undefined);
  if (found?.isDirectory() !== true) {
    throw new ConfigError(
      "--hosts-dir",
      hostsDir,
      "give the directory that containerd's config_path names; make it first",
    );
  }
  const { isRegistry } = await import("@p2p-mirror/shared");
  const wrong = registry.find((one) => one !== "_default" && !isRegistry(one));
  if (wrong !== undefined) {
    throw new ConfigError(
      "--registry",
      wrong,
      "give a registry as image names have it, like ghcr.io or host:5000",
    );
  }
  return { hostsDir, registries: registry };
}

const withMirror = (command: Command): Command =>
  command.option(
    "--mirror <URL>",
    "the mirror as containerd asks it (default: P2P_MIRROR_REGISTRY, else registry_listen)",
  );

async function doneTable(done: readonly Done[]): Promise<string> {
  const { renderTable } = await import("./table.ts");
  return renderTable(
    ["DIRECTORY", "WHAT", "WHY"],
    done.map(({ directory, outcome, reason }) => [directory, outcome, reason ?? ""]),
  );
}
