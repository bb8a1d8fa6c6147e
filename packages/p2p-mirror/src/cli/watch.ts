import { setTimeout as delay } from "node:timers/promises";
import type { MirrorStatus } from "../status.ts";
import { fetchStatus } from "./admin-client.ts";
import { CommandFailure, reportOf } from "./failure.ts";
import { createScreen, type Screen } from "./screen.ts";
import { SpeedMeter } from "./speeds.ts";
import { renderStatus, statusLines } from "./status.ts";
import type { Terminal } from "./terminal.ts";

export interface WatchOptions {
  readonly adminUrl: string;
  /** Milliseconds from one look to the next. */
  readonly everyMs: number;
  /** One line of JSON for each look. */
  readonly json: boolean;
}

/**
 * Shows the status of a mirror again and again until the signal, which is how it ends and no failure: in place on a
 * terminal, else as lines. A mirror that is away for a while (a restart) is said to be. @throws CommandFailure when it
 * does not answer at first
 */
export async function watch(options: WatchOptions, terminal: Terminal): Promise<void> {
  const { stdout, stderr, signal } = terminal;
  const meter = new SpeedMeter();
  const screen = stdout.isTTY && !options.json ? createScreen(stdout) : undefined;
  let seen = false;
  try {
    for (;;) {
      try {
        const status = await fetchStatus(options.adminUrl, signal);
        seen = true;
        show(status, options, { stdout, screen, meter });
      } catch (error) {
        if (!seen || !(error instanceof CommandFailure)) throw error;
        const { text } = reportOf(error);
        if (screen === undefined) stderr.write(text);
        else screen.draw(text);
      }
      await delay(options.everyMs, undefined, { signal });
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    screen?.end();
  }
}

interface View {
  readonly stdout: Terminal["stdout"];
  readonly screen: Screen | undefined;
  readonly meter: SpeedMeter;
}

function show(status: MirrorStatus, { json }: WatchOptions, { stdout, screen, meter }: View): void {
  if (json) return stdout.write(`${JSON.stringify(status)}\n`);
  const speeds = meter.look(status, performance.now());
  const now = Date.now();
  if (screen === undefined) stdout.write(statusLines(status, now, speeds));
  else screen.draw(renderStatus(status, now, speeds));
}
