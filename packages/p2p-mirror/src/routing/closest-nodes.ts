import { keyHashOf, positionOfKey } from "./key.ts";
import type { Members } from "./members.ts";
import type { NodeAddress, RoutingKey } from "./router.ts";

/** The members closest to a key, and this node in its place among them. */
export function closestNodes(
  key: RoutingKey,
  count: number,
  members: Members,
  self: NodeAddress & { readonly position: number },
): NodeAddress[] {
  const place = positionOfKey(keyHashOf(key));
  const distance = ({ position }: { readonly position: number }): number => (position ^ place) >>> 0;
  const nodes = members.closest(place, count).flatMap((member) => {
    const address = members.libp2pAddress(member.id);
    return address === undefined ? [] : [{ id: member.id, position: member.position, ...address }];
  });
  return [...nodes, self]
    .toSorted((a, b) => distance(a) - distance(b))
    .slice(0, count)
    .map(({ id, host, port }) => ({ id, host, port }));
}
