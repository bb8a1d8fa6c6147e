import type { Command } from "commander";
import { ConfigError, InvalidValue } from "@p2p-mirror/shared/config";
import { endpointUrl, type EndpointName } from "../config/endpoints.ts";
import type { MirrorStatus } from "../status.ts";
import type { Platform } from "./platform.ts";
import type { Terminal } from "./terminal.ts";

interface Flags {
  readonly config?: string;
  readonly admin?: string;
  readonly registry?: string;
  readonly json?: true;
  readonly watch?: string | true;
  readonly platform?: string;
  readonly allPlatforms?: true;
}

/** The commands that talk to a running mirror. What they need is loaded when they run. */
export function addCommands(program: Command, terminal: Terminal): void {
  const url = (name: EndpointName, flags: Flags): Promise<string> =>
    endpointUrl(name, { url: flags[name], flags: {}, env: terminal.env, configPath: flags.config });
  const show = async (flags: Flags, render: (status: MirrorStatus) => Promise<string>): Promise<void> => {
    const { fetchStatus } = await import("./admin-client.ts");
    const status = await fetchStatus(await url("admin", flags), terminal.signal);
    terminal.stdout.write(await render(status));
  };

  withAdmin(program.command("ls").description("list the images that this node holds, by tag"))
    .option("--json", "print JSON")
    .action((flags: Flags) =>
      show(flags, async (status) => {
        if (flags.json === true) return asJson(status.images);
        return (await import("./status.ts")).renderImages(status, Date.now());
      }),
    );

  withAdmin(program.command("status").description("show the node, its peers, flights, cache and upstreams"))
    .option("--json", "print JSON: all that the admin endpoint says; with --watch an object in each line")
    .option("--watch [SECONDS]", "show it again every second, or every so many, until Ctrl-C")
    .action(async (flags: Flags) => {
      if (flags.watch !== undefined) {
        const everyMs = intervalOf(flags.watch);
        const { watch } = await import("./watch.ts");
        const adminUrl = await url("admin", flags);
        return watch({ adminUrl, everyMs, json: flags.json === true }, terminal);
      }
      await show(flags, async (status) => {
        if (flags.json === true) return asJson(status);
        return (await import("./status.ts")).renderStatus(status, Date.now());
      });
    });

  program
    .command("pull")
    .argument("<REF>", "image, like nginx:1.27 or ghcr.io/owner/name@sha256:…")
    .description(
      "pull an image through the mirror of this node, verify it and keep nothing: the mirror has it then",
    )
    .option("--platform <OS/ARCH>", "which image of an index (default: that of this machine)")
    .option("--all-platforms", "everything that an index names")
    .option(
      "--registry <URL>",
      "registry endpoint of the mirror (default: P2P_MIRROR_REGISTRY, else registry_listen)",
    )
    .option("--config <FILE>", CONFIG_HELP)
    .action(async (reference: string, flags: Flags) => {
      const { pull } = await import("./pull.ts");
      const platform = await platformOf(flags);
      const registryUrl = await url("registry", flags);
      await pull({ registryUrl, reference, platform }, terminal, () => performance.now());
    });
}

const CONFIG_HELP = "the mirror's config file (default: P2P_MIRROR_CONFIG, else none)";

const withAdmin = (command: Command): Command =>
  command
    .option("--admin <URL>", "admin endpoint of the mirror (default: P2P_MIRROR_ADMIN, else admin_listen)")
    .option("--config <FILE>", CONFIG_HELP);

const asJson = (value: unknown): string => `${JSON.stringify(value, undefined, 2)}\n`;

/** Milliseconds. @throws ConfigError */
function intervalOf(watch: string | true): number {
  if (watch === true) return 1_000;
  const seconds = /^\d+(?:\.\d+)?$/.test(watch) ? Number(watch) : Number.NaN;
  if (seconds >= 0.05 && seconds <= 86_400) return seconds * 1_000;
  throw new ConfigError("--watch", watch, "give seconds from 0.05 to 86400, or leave them out: 1");
}

/** Undefined: all. @throws ConfigError */
async function platformOf(flags: Flags): Promise<Platform | undefined> {
  const { hostPlatform, parsePlatform } = await import("./platform.ts");
  if (flags.allPlatforms === true) {
    if (flags.platform === undefined) return undefined;
    throw new ConfigError("--platform", flags.platform, "leave it out, or leave out --all-platforms");
  }
  if (flags.platform === undefined) return hostPlatform();
  try {
    return parsePlatform(flags.platform);
  } catch (error) {
    if (!(error instanceof InvalidValue)) throw error;
    throw new ConfigError("--platform", flags.platform, error.fix, { cause: error });
  }
}
