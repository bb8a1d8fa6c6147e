import { RigError } from "./errors.ts";
import { exec, tryExec } from "./exec.ts";

/** What tc is told about one device. */
export interface DeviceLimit {
  /** Of all that leaves the device ("200mbit"); undefined: unlimited. */
  readonly rate: string | undefined;
  /** Of what comes from one address: a share of `rate`, never more than it. */
  readonly from?: { readonly address: string; readonly rate: string } | undefined;
}

/** Bytes that may pass at once after a pause: 1 Gbit/s needs so many for a kernel that looks 1,000 times a second. */
const BURST = "256kb";
/** Far above what these links can do. */
const UNLIMITED = "40gbit";

/**
 * Shapes what leaves a device: by a token bucket, and where one address has a rate of its own by classes below it.
 * Only tbf, htb and u32, which every kernel has.
 */
export async function shapeDevice(netns: string, device: string, { rate, from }: DeviceLimit): Promise<void> {
  const tc = (what: string, ...args: string[]): string[] => ["tc", "-n", netns, what, ...args];
  if (from === undefined) {
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
  const all = rate ?? UNLIMITED;
  const bursts = ["burst", BURST, "cburst", BURST];
  const htb = (parent: string, id: string, rate: string, ceil: string): string[] =>
    tc("class", "add", "dev", device, "parent", parent, "classid", id).concat([
      "htb",
      "rate",
      rate,
      "ceil",
      ceil,
      ...bursts,
      "quantum",
      "60000",
    ]);
  await exec(tc("qdisc", "add", "dev", device, "root", "handle", "1:", "htb", "default", "10"));
  await exec(htb("1:", "1:1", all, all));
  // Everybody else may use all that is free; a rate of its own it has so little of that it borrows nearly all.
  await exec(htb("1:1", "1:10", "1mbit", all));
  await exec(htb("1:1", "1:20", from.rate, from.rate));
  for (const [id, ceil] of [
    ["10", all],
    ["20", from.rate],
  ] as const) {
    const queue = String(Math.ceil(bitsPerSecond(ceil) / 8 / 10) + 256 * 1024);
    await exec(tc("qdisc", "add", "dev", device, "parent", `1:${id}`, "bfifo", "limit", queue));
  }
  const match = ["u32", "match", "ip", "src", `${from.address}/32`, "flowid", "1:20"];
  await exec(tc("filter", "add", "dev", device, "parent", "1:", "protocol", "ip", ...match));
}

const UNITS: Readonly<Record<string, number>> = { bit: 1, kbit: 1e3, mbit: 1e6, gbit: 1e9 };

/** A rate as tc takes it, in bits per second. */
export function bitsPerSecond(rate: string): number {
  const [, number = "", unit = ""] = /^([\d.]+)([kmg]?bit)$/.exec(rate) ?? [];
  const factor = UNITS[unit];
  if (factor === undefined)
    throw new RigError("COMMAND_FAILED", `${rate} is no rate in bit, kbit, mbit or gbit`);
  return Number(number) * factor;
}
