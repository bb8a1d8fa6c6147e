import { closeSync, constants, openSync } from "node:fs";
import { join } from "node:path";
import type { Containerd } from "../../../test/rig/containerd.ts";
import { createCri } from "../../../test/rig/cri.ts";
import { RigError } from "../../../test/rig/errors.ts";
import { exec } from "../../../test/rig/exec.ts";
import type { NetworkNode } from "../../../test/rig/netns.ts";
import { startProcess } from "../../../test/rig/process.ts";

/** A pull of which everything but the pull itself is done. */
export interface ArmedPull extends AsyncDisposable {
  /** Lets it go; returns at once. */
  release(): void;
  /** Resolves when containerd has the image; rejects with what ctr or containerd said. Only after `release`. */
  readonly done: Promise<void>;
}

export interface PullTarget {
  readonly containerd: Containerd;
  readonly place: NetworkNode;
  readonly reference: string;
  /** Milliseconds until it is given up. */
  readonly timeoutMs: number;
}

/** For CRI: the connection stands, the call is not made yet. */
export async function armCri({ containerd, reference, timeoutMs }: PullTarget): Promise<ArmedPull> {
  const cri = createCri(containerd.socket);
  await cri.list();
  const gone = new AbortController();
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  const pull = async (): Promise<void> => {
    await released;
    await cri.pull(reference, { timeoutMs, signal: gone.signal });
  };
  const done = pull();
  done.catch(() => undefined);
  return {
    release,
    done,
    async [Symbol.asyncDispose]() {
      gone.abort();
      cri.close();
    },
  };
}

/**
 * For ctr: its process waits in the node's namespace for the end of an empty pipe, and becomes ctr then. Closing the
 * pipes of all nodes is a few microseconds' work, starting as many processes would not be.
 */
export async function armFetch(target: PullTarget, folder: string, name: string): Promise<ArmedPull> {
  const { containerd, place, reference, timeoutMs } = target;
  const pipe = join(folder, `${name}.start`);
  await exec(["mkfifo", pipe]);
  const fetch = ["content", "fetch", "--hosts-dir", containerd.certsDir, reference];
  const running = await startProcess({
    name: `ctr on ${name}`,
    argv: ["sh", "-c", 'read -r _ <"$0"; exec "$@"', pipe, ...containerd.ctrArgv(fetch)],
    env: containerd.env,
    netns: place.netns,
    // It draws progress bars.
    logLimit: 8 * 1024,
  });
  let write: number | undefined;
  let timer: NodeJS.Timeout | undefined;
  const letGo = (): void => {
    if (write !== undefined) closeSync(write);
    write = undefined;
  };
  try {
    // Without a reader that waits, opening it fails: ENXIO.
    write = await running.until("it waits for the start", () =>
      openSync(pipe, constants.O_WRONLY | constants.O_NONBLOCK),
    );
  } catch (error) {
    await running.stop();
    throw error;
  }
  const done = running.ended.then(({ code, signal }) => {
    clearTimeout(timer);
    if (code === 0) return;
    const said = running.log().slice(-2000);
    throw new RigError("PULL_FAILED", `${running.name} ended with ${code ?? signal}: ${said}`);
  });
  done.catch(() => undefined);
  return {
    release() {
      timer = setTimeout(() => running.kill("SIGKILL"), timeoutMs);
      letGo();
    },
    done,
    async [Symbol.asyncDispose]() {
      clearTimeout(timer);
      await running.stop(0);
      letGo();
    },
  };
}
