import type { Clock, Logger, Service } from "@p2p-mirror/shared";
import { Counter, Gauge, type Registry } from "prom-client";
import { installHosts, removeHosts, type Done, type HostsOptions } from "./hosts.ts";

/** A dozen small files are read; a watch would not see through mounts, and miss what a tool replaces by a link. */
const CHECK_MS = 10_000;

export interface HostsKeeperOptions extends HostsOptions {
  /** Whoever ends the mirror may not come back (Kubernetes does not say which): leave the files as they were. Default false. */
  readonly removeAtEnd?: boolean;
}

export interface HostsKeeperDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly registry: Registry;
  /** What others have in these files; read again with each look. */
  readonly others: { read(): Promise<void> };
}

/**
 * Keeps the mirror first in hosts.toml while it serves: other tools write these files anew (k3s at each start). What
 * cannot be put in force is said once, and tried again. At the end, nothing is removed unless it is wished: a mirror that is
 * not there refuses, and containerd asks the next host; `hosts remove` takes the blocks out.
 */
export class HostsKeeper implements Service {
  readonly name = "hosts";
  readonly #options: HostsKeeperOptions;
  readonly #deps: HostsKeeperDeps;
  readonly #repairs: Counter;
  readonly #left: Gauge;
  /** Directory to the reason that was logged. */
  #said = new Map<string, string>();
  #round: Promise<void> | undefined;
  #takeBack: (() => void) | undefined;
  #closed = false;

  constructor(options: HostsKeeperOptions, deps: HostsKeeperDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#repairs = new Counter({
      name: "p2p_mirror_hosts_repairs_total",
      help: "hosts.toml files that others had overwritten, and in which the mirror was put first again",
      registers: [deps.registry],
    });
    this.#left = new Gauge({
      name: "p2p_mirror_hosts_left_alone",
      help: "hosts.toml files in which the mirror could not be put first; the log says why",
      registers: [deps.registry],
    });
  }

  async start(): Promise<void> {
    await this.#install((directory) =>
      this.#deps.logger.info({ directory }, "hosts.toml names the mirror first"),
    );
    this.#next();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#takeBack?.();
    await this.#round;
    if (this.#options.removeAtEnd === true) await this.#remove();
  }

  async #remove(): Promise<void> {
    const { logger } = this.#deps;
    for (const { directory, outcome, reason } of await removeHosts(this.#options)) {
      if (outcome === "removed") logger.info({ directory }, "hosts.toml is as it was without the mirror");
      if (outcome === "left alone") {
        logger.warn({ directory, reason }, "hosts.toml still names the mirror, which ends now");
      }
    }
  }

  #next(): void {
    if (this.#closed) return;
    this.#takeBack = this.#deps.clock.after(CHECK_MS, () => {
      this.#round = this.#check().finally(() => this.#next());
    });
  }

  async #install(say: (directory: string) => void): Promise<void> {
    const done = await installHosts(this.#options);
    for (const { directory, outcome, reason } of done) {
      if (outcome === "installed") say(directory);
      if (outcome === "removed") {
        this.#deps.logger.info({ directory, reason }, "hosts.toml names the mirror no more");
      }
    }
    this.#leave(done);
    await this.#deps.others.read();
  }

  async #check(): Promise<void> {
    const { logger } = this.#deps;
    try {
      await this.#install((directory) => {
        this.#repairs.inc();
        logger.warn({ directory }, "hosts.toml was changed by others; the mirror is first again");
      });
    } catch (error) {
      logger.error({ err: error }, "hosts.toml could not be checked");
    }
  }

  #leave(done: readonly Done[]): void {
    const left = new Map<string, string>();
    for (const { directory, outcome, reason = "" } of done) {
      if (outcome !== "left alone") continue;
      left.set(directory, reason);
      if (this.#said.get(directory) === reason) continue;
      this.#deps.logger.warn(
        { directory, reason },
        "hosts.toml is left alone: containerd does not ask the mirror there",
      );
    }
    this.#said = left;
    this.#left.set(left.size);
  }
}
