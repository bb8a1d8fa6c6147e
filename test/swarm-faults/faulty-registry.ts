/** A registry whose faults are on order, as a process of its own in the upstream's network. */
import path from "node:path";
import type { NetworkNode } from "../rig/netns.ts";
import type { Fault } from "../rig/oci-registry.ts";
import { startProcess } from "../rig/process.ts";

export interface Asked {
  readonly status: number;
  /** Of the body. */
  readonly bytesSent: number;
}

export interface FaultyRegistry extends AsyncDisposable {
  readonly url: string;
  /** What goes wrong from now on; gives what was asked of blobs since the last change. */
  set(faults: readonly Fault[]): Promise<readonly Asked[]>;
}

export interface FaultyRegistryOptions {
  /** It listens on this port and the next one. */
  readonly port: number;
  /** GETs of blobs are redirected by links that live so long. */
  readonly linkLifeMs?: number;
}

export async function startFaultyRegistry(
  { netns, address }: NetworkNode,
  { port, linkLifeMs }: FaultyRegistryOptions,
): Promise<FaultyRegistry> {
  const script = path.join(import.meta.dirname, "../rig/oci-registry-process.ts");
  const where = [address, String(port), ...(linkLifeMs === undefined ? [] : [String(linkLifeMs)])];
  const running = await startProcess({
    name: "the registry with faults",
    argv: [process.execPath, "--conditions=@p2p-mirror/source", script, ...where],
    netns,
  });
  const set = async (faults: readonly Fault[]): Promise<readonly Asked[]> => {
    const control = `http://${address}:${port + 1}`;
    const answer: unknown = await (
      await fetch(control, { method: "POST", body: JSON.stringify(faults) })
    ).json();
    return Array.isArray(answer) ? answer.map(askedOf) : [];
  };
  try {
    await running.until("it answers", () => set([]).then(() => true));
  } catch (error) {
    await running.stop();
    throw error;
  }
  const close = async (): Promise<void> => void (await running.stop());
  return { url: `http://${address}:${port}`, set, [Symbol.asyncDispose]: close };
}

const askedOf = (value: object): Asked => ({
  status: Number(Reflect.get(value, "status")),
  bytesSent: Number(Reflect.get(value, "bytesSent")),
});
