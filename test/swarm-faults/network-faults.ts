/** What goes wrong between nodes: packets that get lost, connections that only one side has. */
import type { NetworkNode } from "../rig/netns.ts";

const INTERFACE = "eth0";
/** Of no machine: frames to it are nobody's. */
const NOBODY = "02:00:00:00:00:01";

type Side = Pick<NetworkNode, "address" | "exec">;

/** Everything from one node to the other is lost, without a word. The way back stays. */
async function deafen(from: Side, to: Side): Promise<void> {
  await from.exec([
    "ip",
    "neigh",
    "replace",
    to.address,
    "lladdr",
    NOBODY,
    "nud",
    "permanent",
    "dev",
    INTERFACE,
  ]);
}

async function hear(from: Side, to: Side): Promise<void> {
  await from.exec(["ip", "neigh", "delete", to.address, "dev", INTERFACE]);
}

async function eachWay(
  some: readonly Side[],
  others: readonly Side[],
  change: (from: Side, to: Side) => Promise<void>,
): Promise<void> {
  const pairs = some.flatMap((one) =>
    others.map(async (other) => {
      await change(one, other);
      await change(other, one);
    }),
  );
  await Promise.all(pairs);
}

/** Nothing gets from one side to the other any more, as when a switch between them dies. Resolves with how it heals. */
export async function part(some: readonly Side[], others: readonly Side[]): Promise<() => Promise<void>> {
  await eachWay(some, others, deafen);
  return () => eachWay(some, others, hear);
}

/** TCP connections between mirrors, of both of its ports there, as ss takes them. */
const BETWEEN_MIRRORS = "'( dport = :24221 or sport = :24221 or dport = :24222 or sport = :24222 )'";
const DROP = `ss -K -H -t -n state established ${BETWEEN_MIRRORS}`;

/** The kernel forgets the node's connections to other mirrors, and tells their other ends by RST. How many there were. */
export function dropConnections(node: Side): Promise<number> {
  return runDrop(node, DROP);
}

/** The same, but what it tells the others is lost: they go on as if nothing were. */
export function dropUnheard(node: Side, others: readonly Side[]): Promise<number> {
  // In one breath, since what the node sends anew meanwhile is lost, too.
  const hosts = others.map(({ address }) => address).join(" ");
  const each = (what: string): string => `for host in ${hosts}; do ip neigh ${what}; done`;
  const lose = each(`replace $host lladdr ${NOBODY} nud permanent dev ${INTERFACE}`);
  return runDrop(node, `${lose}; ${DROP}; ${each(`delete $host dev ${INTERFACE}`)}`);
}

async function runDrop({ exec }: Side, script: string): Promise<number> {
  const { stdout } = await exec(["sh", "-c", script]);
  return stdout.split("\n").filter((line) => line.trim() !== "").length;
}
