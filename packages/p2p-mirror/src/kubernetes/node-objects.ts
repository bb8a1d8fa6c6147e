import type { Finding } from "../status.ts";

/** The type of the Node condition: whether images of this node come through its mirror. */
export const CONDITION_TYPE = "ImageMirrorInForce";

/** A condition as Node has it (Kubernetes API, core/v1 NodeCondition); times as RFC 3339. */
export interface Condition {
  readonly type: string;
  readonly status: "True" | "False";
  /** One word in CamelCase. */
  readonly reason: string;
  readonly message: string;
  readonly lastHeartbeatTime: string;
  readonly lastTransitionTime: string;
}

/** An Event's message may have 1,024 bytes; a condition's is for `kubectl describe`. */
const MAX_MESSAGE = 900;

/** @param before what was said the last time */
export function conditionOf(broken: readonly Finding[], before: Condition | undefined, now: Date): Condition {
  const [first] = broken;
  const status = first === undefined ? "True" : "False";
  const time = timeOf(now);
  return {
    type: CONDITION_TYPE,
    status,
    reason: first === undefined ? "NothingBroken" : camelCase(first.check),
    message:
      first === undefined ? "images of this node come through its mirror" : messageOf(first, broken.length),
    lastHeartbeatTime: time,
    lastTransitionTime: before?.status === status ? before.lastTransitionTime : time,
  };
}

function messageOf({ what, fix }: Finding, count: number): string {
  const others = count > 1 ? ` (and ${count - 1} more: p2p-mirror doctor)` : "";
  return `${what}; what to do: ${fix}`.slice(0, MAX_MESSAGE) + others;
}

/** An Event about the Node. It is in the namespace `default`, where Events of what has no namespace must be. */
export function eventOf(
  { status, reason, message, lastTransitionTime }: Condition,
  node: { readonly name: string; readonly uid: string | undefined },
): object {
  const isFalse = status === "False";
  return {
    apiVersion: "v1",
    kind: "Event",
    metadata: { generateName: `${node.name}.p2p-mirror.`, namespace: "default" },
    involvedObject: { apiVersion: "v1", kind: "Node", name: node.name, uid: node.uid ?? node.name },
    type: isFalse ? "Warning" : "Normal",
    reason: isFalse ? "ImageMirrorNotInForce" : "ImageMirrorInForce",
    message: isFalse ? `${reason}: ${message}` : message,
    source: { component: "p2p-mirror", host: node.name },
    reportingComponent: "p2p-mirror",
    reportingInstance: node.name,
    firstTimestamp: lastTransitionTime,
    lastTimestamp: lastTransitionTime,
    count: 1,
  };
}

const camelCase = (name: string): string =>
  name
    .split("-")
    .map((word) => word.slice(0, 1).toUpperCase() + word.slice(1))
    .join("");

/** Kubernetes' times here are whole seconds. */
const timeOf = (date: Date): string => date.toISOString().replace(/\.\d+Z$/, "Z");
