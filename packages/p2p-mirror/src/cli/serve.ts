import { createLogger, raceSignal, type Logger } from "@p2p-mirror/shared";
import { loadMirrorConfig, type ConfigRequest } from "../config/load.ts";
import type { MirrorConfig } from "../config/mirror-config.ts";
import { allAddresses } from "./addresses.ts";
import type { ExitCode, Terminal } from "./terminal.ts";

/** The daemon as this command runs it. */
export interface ServedDaemon {
  /** Resolves when everything listens. */
  start(signal: AbortSignal): Promise<void>;
  /** Withdraws, drains within its bounds, leaves nothing open; also after a failed start. */
  close(): Promise<void>;
  /** Known after start. */
  readonly registryUrl: string;
  readonly adminUrl: string;
}

export type CreateDaemon = (
  config: MirrorConfig,
  deps: { readonly logger: Logger; readonly version: string },
) => ServedDaemon;

export interface ServeDeps {
  readonly version: string;
  /** Called after the config was found right. */
  loadDaemon(): Promise<CreateDaemon>;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

/** Not a warning: it is the default, and nothing is wrong. */
const PUBLIC_IS_BY_NAME =
  "access is public: the name of a repository is checked, not that a digest belongs to it; whoever knows the digest of a private blob held here or by a peer can read it";

/** Runs the daemon until the first signal, then closes it. */
export async function serve(request: ConfigRequest, terminal: Terminal, deps: ServeDeps): Promise<ExitCode> {
  const { config, warnings } = await loadMirrorConfig(request, { allAddresses: allAddresses() });
  const logger = createLogger(config.logLevel, terminal.stderr);
  for (const warning of warnings) logger.warn(warning);
  const createDaemon = await deps.loadDaemon();
  const daemon = createDaemon(config, { logger, version: deps.version });
  try {
    // A start that hangs (a dead disk, a name server that says nothing) must not keep the program from its end.
    const starting = daemon.start(terminal.signal);
    starting.catch(() => undefined);
    await raceSignal(starting, terminal.signal);
    logger.info({ registry: daemon.registryUrl, admin: daemon.adminUrl }, "ready");
    if (config.access === "public") logger.info(PUBLIC_IS_BY_NAME);
    await aborted(terminal.signal);
    logger.info("closing; a second signal forces the end");
  } catch (error) {
    await daemon.close().catch((err: unknown) => logger.error({ err }, "closing after a failed start"));
    // A signal while starting is a wish, not a failure.
    if (!terminal.signal.aborted) throw error;
    return 0;
  }
  await daemon.close();
  logger.info("closed");
  return 0;
}
