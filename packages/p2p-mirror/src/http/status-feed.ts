import type { ServerResponse } from "node:http";
import type { Clock, Logger } from "@p2p-mirror/shared";

export interface StatusFeedDeps {
  /** What `/status` answers. */
  readonly status: () => Promise<unknown>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** A person has a page or two open. */
const MAX_WATCHERS = 8;
const EVERY_MS = 1_000;
/** Events that a watcher may leave unread, one after the other, before its connection is closed. */
const MAX_BEHIND = 30;

/**
 * The status as server-sent events, once a second while somebody watches. An event `status` is a JSON object with the
 * parts of the status that changed since the one before; the first has all, and so has the first after a watcher was
 * too slow to take one. Nothing happens while nobody watches.
 */
export class StatusFeed {
  readonly #deps: StatusFeedDeps;
  /** How many events each has missed in a row; undefined: it has had none. */
  readonly #watchers = new Map<ServerResponse, number | undefined>();
  /** JSON of each part, as it was told last. */
  #told: ReadonlyMap<string, string> = new Map();
  #round: Promise<void> | undefined;
  #takeBack: (() => void) | undefined;

  constructor(deps: StatusFeedDeps) {
    this.#deps = deps;
  }

  /** Answers a request with events until either side ends it. False, and nothing is answered, when too many watch. */
  add(response: ServerResponse): boolean {
    if (this.#watchers.size >= MAX_WATCHERS) return false;
    response.writeHead(200, {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-store",
      "x-content-type-options": "nosniff",
    });
    // Should the mirror go away: again after 2 s.
    response.write("retry: 2000\n\n");
    this.#watchers.set(response, undefined);
    response.on("close", () => this.#watchers.delete(response));
    // A connection that was reset says so here, and closes.
    response.on("error", () => undefined);
    this.#now();
    return true;
  }

  async close(): Promise<void> {
    this.#takeBack?.();
    for (const response of this.#watchers.keys()) response.end();
    this.#watchers.clear();
    await this.#round;
  }

  #now(): void {
    this.#takeBack?.();
    this.#round ??= this.#tell().finally(() => {
      this.#round = undefined;
      if (this.#watchers.size > 0) this.#takeBack = this.#deps.clock.after(EVERY_MS, () => this.#now());
    });
  }

  async #tell(): Promise<void> {
    let parts: ReadonlyMap<string, string>;
    try {
      parts = partsOf(await this.#deps.status());
    } catch (error) {
      this.#deps.logger.error({ err: error }, "the status could not be told");
      return;
    }
    const changed = [...parts].filter(([name, json]) => this.#told.get(name) !== json);
    this.#told = parts;
    for (const [response, missed] of this.#watchers) {
      if (!response.writableNeedDrain) {
        response.write(eventOf(missed === 0 ? changed : [...parts]));
        this.#watchers.set(response, 0);
      } else if ((missed ?? 0) < MAX_BEHIND) this.#watchers.set(response, (missed ?? 0) + 1);
      else response.destroy();
    }
  }
}

const partsOf = (status: unknown): Map<string, string> =>
  new Map(
    Object.entries(typeof status === "object" && status !== null ? status : {}).flatMap(([name, value]) =>
      value === undefined ? [] : [[name, JSON.stringify(value)] as const],
    ),
  );

/** JSON has no line breaks, so an event has one line of data. */
const eventOf = (parts: readonly (readonly [string, string])[]): string =>
  `event: status\ndata: {${parts.map(([name, json]) => `${JSON.stringify(name)}:${json}`).join(",")}}\n\n`;
