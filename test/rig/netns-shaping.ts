import { RigError } from "./errors.ts";
import { exec, tryExec } from "./exec.ts";

/** What goes to one address has this rate ("20mbit"), within the device's own. */
export interface ThinPath {
  readonly address: string;
  readonly rate: string;
}

/** What tc is told about one device. */
export interface DeviceLimit {
  /** Of all that leaves the device ("200mbit"); undefined: unlimited. */
  readonly rate: string | undefined;
  readonly paths?: readonly ThinPath[] | undefined;
}

/** Bytes that may pass at once after a pause: 1 Gbit/s needs so many for a kernel that looks 1,000 times a second. */
const BURST = "256kb";
const BURSTS = ["burst", BURST, "cburst", BURST, "quantum", "60000"];
/** Far above what these links can do. */
const UNLIMITED = "40gbit";

/**
 * Shapes what leaves a device: by a token bucket, and where paths have rates of their own by classes below it. Only tbf,
 * htb and u32, which every kernel has.
 */
export async function shapeDevice(netns: string, device: string, limit: DeviceLimit): Promise<void> {
  const { rate, paths = [] } = limit;
  const tc = (what: string, ...args: string[]): string[] => ["tc", "-n", netns, what, ...args];
  if (paths.length === 0) {
    // Fails where there is none, which is as good.
    if (rate === undefined) await tryExec(tc("qdisc", "delete", "dev", device, "root"));
    // A replaced bucket keeps what is queued: the rate of a running network changes without a loss.
    else
      await exec(
        tc("qdisc", "replace", "dev", device, "root").concat([
          "tbf",
          "rate",
          rate,
          "burst",
          BURST,
          "latency",
          "100ms",
        ]),
      );
    return;
  }
  await tryExec(tc("qdisc", "delete", "dev", device, "root"));
  const all = bitsPerSecond(rate ?? UNLIMITED);
  const addClass = async (parent: string, id: string, rate: number, ceil: number): Promise<void> => {
    const rates = ["htb", "rate", `${Math.round(rate)}bit`, "ceil", `${Math.round(ceil)}bit`];
    const add = tc("class", "add", "dev", device, "parent", parent, "classid", id);
    await exec(add.concat(rates, BURSTS));
  };
  const addQueue = async (id: string, ceil: number): Promise<void> => {
    // As long as that of a bucket: 100 ms.
    const limit = String(Math.ceil(ceil / 8 / 10) + 256 * 1024);
    await exec(tc("qdisc", "add", "dev", device, "parent", id, "bfifo", "limit", limit));
  };
  await exec(tc("qdisc", "add", "dev", device, "root", "handle", "1:", "htb", "default", "10"));
  await addClass("1:", "1:1", all, all);
  // A class may always use its rate, even where all together are more than the link: so these are shares of it, and
  // what is above is borrowed, up to the ceiling.
  const share = all / (paths.length + 1);
  await addClass("1:1", "1:10", share, all);
  await addQueue("1:10", all);
  for (const [index, path] of paths.entries()) {
    const id = `1:${(0x20 + index).toString(16)}`;
    const ceil = Math.min(all, bitsPerSecond(path.rate));
    await addClass("1:1", id, Math.min(ceil, share), ceil);
    await addQueue(id, ceil);
    const match = ["u32", "match", "ip", "dst", `${path.address}/32`, "flowid", id];
    await exec(tc("filter", "add", "dev", device, "parent", "1:", "protocol", "ip", ...match));
  }
}

const UNITS: Readonly<Record<string, number>> = { bit: 1, kbit: 1e3, mbit: 1e6, gbit: 1e9 };

/** A rate as tc takes it, in bits per second. */
function bitsPerSecond(rate: string): number {
  const [, number = "", unit = ""] = /^([\d.]+)([kmg]?bit)$/.exec(rate) ?? [];
  const factor = UNITS[unit];
  if (factor === undefined)
    throw new RigError("COMMAND_FAILED", `${rate} is no rate in bit, kbit, mbit or gbit`);
  return Number(number) * factor;
}
