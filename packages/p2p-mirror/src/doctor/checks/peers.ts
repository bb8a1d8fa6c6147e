import type { BootstrapStatus, Finding, MirrorStatus } from "../../status.ts";
import { CannotTell, type Check } from "../check.ts";

type Found = Omit<Finding, "check">;

/** Fewer may be a node that was just restarted. */
const MANY_FAULTS = 3;
/** Large answers stop where packets of full size do not get through, small ones come. */
const STALLS =
  "packets of full size may not get through on the way (a tunnel or VPN with a smaller MTU), though small ones do";

/** Whether this node reaches the others: who was to lead to them, and those it knows. */
export const peers: Check = {
  name: "peers",
  cheap: true,
  async find(subject) {
    const status = await subject.status();
    if (status === undefined) throw new CannotTell("no mirror runs");
    const alone = subject.settings.knowsNobody && status.peers.length === 0 ? [ALONE] : [];
    return [...alone, ...bootstrap(status), ...unreachable(status), ...stalling(status)];
  },
};

const SERVES_NOBODY = "this node is alone: it serves nobody, and asks the registry for everything";
/** Others that know this one would have come: it is no bootstrap node of a cluster either. */
const ALONE: Found = {
  severity: "warning",
  what: "there is a cluster secret, but nothing that leads to another node, and no other node has come",
  why: SERVES_NOBODY,
  fix: "name one or two nodes that are always there in bootstrap (HOST:24222), or give bootstrap_service",
};

/** One way into the cluster is enough, but another secret is a mistake in any case. */
function bootstrap({ bootstrap: failed = [], peers: known }: MirrorStatus): Found[] {
  return failed
    .filter(({ reason }) => known.length === 0 || reason === "other-secret")
    .map(({ address, reason }) => ({
      severity: known.length === 0 ? ("broken" as const) : ("warning" as const),
      what: `bootstrap address ${address}: ${WHAT[reason]}`,
      why:
        known.length === 0
          ? SERVES_NOBODY
          : "nodes with another secret are another cluster: both ask the registry for everything",
      fix: FIX[reason],
    }));
}

const WHAT: Readonly<Record<BootstrapStatus["reason"], string>> = {
  "unknown-name": "the name does not resolve",
  timeout: "no answer",
  refused: "no connection",
  "other-secret": "a mirror with another cluster secret",
  "no-mirror": "something that is no p2p-mirror answers",
  "no-list": "the Kubernetes API does not list its EndpointSlices",
};

const FIX: Readonly<Record<BootstrapStatus["reason"], string>> = {
  "unknown-name": "correct the name in bootstrap, or the name servers of this node",
  timeout:
    "allow TCP to p2p_listen (24222) and peer_listen (24221) between the nodes: firewalls, network policies",
  refused: "see whether a mirror runs there and listens at that address (p2p_listen), and correct bootstrap",
  "other-secret": "give both nodes the same file as cluster_secret_file, and restart the mirrors",
  "no-mirror": "correct bootstrap: it takes p2p_listen of another mirror, port 24222 by default",
  "no-list":
    "see whether this node reaches kubernetes_api, and whether the mirror's ServiceAccount may list endpointslices there; without, name other nodes in bootstrap",
};

function unreachable({ peers: known }: MirrorStatus): Found[] {
  return known
    .filter(({ state, faults = 0 }) => state === "broken" && faults < MANY_FAULTS)
    .map(({ id, address }) => ({
      severity: "warning",
      what: `node ${id} is in contact, and its data port ${address} cannot be reached`,
      why: "nothing can be fetched from it",
      fix: `allow TCP to ${address} from this node (peer_listen, firewalls, network policies), or correct advertise_address there; if it is allowed, ${STALLS}`,
    }));
}

function stalling({ peers: known }: MirrorStatus): Found[] {
  return known
    .filter(({ faults = 0 }) => faults >= MANY_FAULTS)
    .map(({ id, address, faults }) => ({
      severity: "warning",
      what: `node ${id} at ${address} can be connected to, and its last ${faults} answers did not come or stopped on the way`,
      why: `pulls wait for it before they go elsewhere; ${STALLS}`,
      fix: `compare the MTU of the nodes' interfaces (ip link), try ping -M do -s 1472 ${address.replace(/:\d+$/, "")}, and set the smaller MTU on both sides or let ICMP "fragmentation needed" through; a node that is overloaded recovers by itself`,
    }));
}
