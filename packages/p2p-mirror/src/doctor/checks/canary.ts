import { randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { CANARY, linkSignal, SourceError } from "@p2p-mirror/shared";
import { GrpcStatus, grpcStatusOf } from "@p2p-mirror/shared/grpc";
import { hostsStatus } from "../../hosts/hosts.ts";
import { registryOf } from "../../hosts/registry-directory.ts";
import { CannotTell, type Check, type Subject } from "../check.ts";
import { hostsDirOf } from "./hosts-files.ts";

const LOOK_MS = 50;
const NO_CRI = "unimplemented";

/**
 * The proof of the whole path: containerd is asked, as kubelet asks it, to pull an image that nobody has. The mirror must
 * get to see that.
 */
export const canary: Check = {
  name: "canary",
  cheap: false,
  async find(subject, signal) {
    if ((await subject.status()) === undefined) throw new CannotTell("no mirror runs");
    const tag = randomBytes(8).toString("hex");
    const registry = await registryFor(subject);
    const reference = `${registry}/${CANARY.repository}:${tag}`;
    const outcome = await release(subject, reference, tag, signal);
    if (outcome === "arrived") return [];
    return [
      {
        severity: "broken",
        // Without the tag, which is another one each time: the same finding is told once.
        what: `containerd was asked to pull ${registry}/${CANARY.repository}, and the mirror at ${subject.settings.mirror} was not asked for it`,
        why: `pulls go past the mirror. containerd said: ${outcome}`,
        fix: "correct what else is found here; if that is nothing, see whether containerd was restarted after its configuration had changed, whether it is the one at this socket, and whether it reaches the mirror's address",
      },
    ];
  },
};

/** One whose hosts.toml names the mirror. */
async function registryFor(subject: Subject): Promise<string> {
  try {
    const hostsDir = await hostsDirOf(subject);
    const status = await hostsStatus({ hostsDir, mirror: subject.settings.mirror, registries: [] });
    const inForce = status.filter((one) => one.inForce).map(({ directory }) => registryOf(directory));
    // _default is none of its own.
    return inForce.includes(undefined) ? CANARY.registry : (inForce[0] ?? CANARY.registry);
  } catch (error) {
    if (!(error instanceof CannotTell)) throw error;
    return CANARY.registry;
  }
}

/** Resolves with "arrived" as soon as the mirror has seen it, else with what containerd says. @throws CannotTell */
async function release(
  subject: Subject,
  reference: string,
  tag: string,
  signal: AbortSignal,
): Promise<string> {
  const arrived = async (): Promise<boolean> =>
    (await subject.status())?.node.canaries?.includes(tag) === true;
  const pull = linkSignal([signal]);
  const pulling = subject.pull(reference, pull.signal).then(
    () => "it has pulled it",
    (error: unknown) => saidBy(error, pull.signal),
  );
  try {
    for (;;) {
      const said = await Promise.race([pulling, delay(LOOK_MS, undefined, { signal })]);
      if (await arrived()) return "arrived";
      if (said === undefined) continue;
      if (said === NO_CRI) throw new CannotTell("containerd has no CRI plugin at this socket");
      return said;
    }
  } finally {
    // What comes after the arrival is a lookup of a name that nobody has.
    pull.abort(new DOMException("seen", "AbortError"));
    await pulling;
    pull.release();
  }
}

function saidBy(error: unknown, signal: AbortSignal): string {
  if (signal.aborted) return "nothing";
  if (grpcStatusOf(error) === GrpcStatus.unimplemented) return NO_CRI;
  if (error instanceof SourceError) return error.message.slice(0, 1_000);
  throw error;
}
