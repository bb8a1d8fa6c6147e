import { readFile } from "node:fs/promises";

export interface MachineLoad {
  /** Percent of all cores, over the whole time. */
  readonly mean: number;
  /** The busiest second. */
  readonly peak: number;
}

/** Jiffies since boot, of all cores together. */
interface Ticks {
  readonly busy: number;
  readonly all: number;
}

const WINDOW_MS = 1000;

/**
 * How busy the machine is, whoever keeps it busy: a figure that says whether links or cores were the limit. Time that
 * the hypervisor took for others (steal) counts as busy, since it could not be used.
 */
export class LoadMeter implements Disposable {
  readonly #begin: Ticks;
  #window: Ticks;
  #peak = 0;
  readonly #timer: NodeJS.Timeout;

  private constructor(begin: Ticks) {
    this.#begin = begin;
    this.#window = begin;
    this.#timer = setInterval(() => void this.#look(), WINDOW_MS);
  }

  static async start(): Promise<LoadMeter> {
    return new LoadMeter(await readTicks());
  }

  async stop(): Promise<MachineLoad> {
    clearInterval(this.#timer);
    const end = await readTicks();
    const mean = percent(this.#begin, end);
    return { mean, peak: Math.max(mean, this.#peak) };
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  async #look(): Promise<void> {
    const now = await readTicks();
    this.#peak = Math.max(this.#peak, percent(this.#window, now));
    this.#window = now;
  }
}

async function readTicks(): Promise<Ticks> {
  const [line = ""] = (await readFile("/proc/stat", "utf8")).split("\n");
  // cpu user nice system idle iowait irq softirq steal guest guest_nice; guest time is in user already.
  const [user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0] = line
    .split(/\s+/)
    .slice(1)
    .map(Number);
  const busy = user + nice + system + irq + softirq + steal;
  return { busy, all: busy + idle + iowait };
}

const percent = (from: Ticks, to: Ticks): number =>
  to.all === from.all ? 0 : (100 * (to.busy - from.busy)) / (to.all - from.all);

/** The most memory a process has had resident since it started, in bytes. */
export async function peakResident(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? Number.NaN) * 1024;
}
