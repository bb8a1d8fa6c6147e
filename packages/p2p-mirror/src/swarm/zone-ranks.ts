/** For each member its number in its zone and the size of the zone. By it members take turns; see `SwarmMember.bringsIn`. */
export function ranksByZone(
  members: readonly { readonly id: string; readonly zone: string }[],
): ReadonlyMap<string, readonly [number, number]> {
  const zones = Map.groupBy(members, (member) => member.zone);
  const ranks = new Map<string, readonly [number, number]>();
  for (const zone of zones.values()) {
    for (const [rank, { id }] of zone.entries()) ranks.set(id, [rank, zone.length]);
  }
  return ranks;
}
